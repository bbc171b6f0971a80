"""What is wrong with a data set: unreadable and odd images, duplicates, unbalanced classes."""
