"""The command line (layer 6): one small file a command."""
