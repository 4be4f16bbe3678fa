"""The kernel's notifications: of the instance, of the mount table, of interpreters' files and of the config."""
