"""What befalls a server in the world: broken connections, failing engines, clients that leave, too much load.

`make test` runs every suite small; `make fault` (`FAULT_SIZE=full`) runs them at full size and prints the
figures. Every case is made from its suite and number alone: `FAULT_CASE=<suite>:<number>` runs that one
again, `FAULT_CASES=<n>` bounds how many run.
"""
