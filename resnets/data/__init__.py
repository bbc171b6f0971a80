"""Labelled images: sources, splits, augmentation and batches."""
