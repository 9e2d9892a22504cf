"""From a trained model folder to what runs elsewhere."""
