"""What a distillation method is, and how methods are found, combined and logged."""
