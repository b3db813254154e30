"""Training of Mien's weights: data sets, losses, and the paper's four steps."""
