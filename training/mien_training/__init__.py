"""How Mien's weights are made: data sets, losses, and the paper's four steps."""
