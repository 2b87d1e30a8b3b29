"""What all other folders stand on: the types of tensors, random numbers of an image, values in messages."""
