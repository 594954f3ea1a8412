"""The command line: `pinaivu up | verify | keys | wallet | node | report`."""
