"""Other ways to paint with the weights of a `RasterPrior`, a module for each: what bisquit is measured against."""
