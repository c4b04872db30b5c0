"""The commands of `cnn-zoo`, one a file. They import what they need when they run, so that `cnn-zoo --help` answers at once."""
