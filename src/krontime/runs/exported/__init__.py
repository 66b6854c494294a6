"""A trained model as one graph: the formats that other programs run, and the proof that they answer alike."""
