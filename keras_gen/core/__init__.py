"""What every family of models shares: argument checks, random draws, compilation, and the model base class."""
