"""The command line: one module per command, options documented where they are declared."""
