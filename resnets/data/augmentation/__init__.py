"""Random changes of training images, by whole batches of tensors."""
