"""Infrastructure shared by all model families: argument checks, random draws, compilation, model base class."""
