"""Where data come from: folders of pictures and arrays in files; their scale, and their split."""
