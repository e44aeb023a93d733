"""Kronos (Shi et al., arXiv:2508.02739): a foundation model over tokenised bars."""
