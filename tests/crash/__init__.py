"""What befalls the store and the index's snapshot: processes that are killed, disks that fail, bits that flip.

`make test` runs every suite small; `make crash` (`CRASH_SIZE=full`) runs them at full size and prints the figures.
Every case is made from its suite and number alone: `CRASH_CASE=<suite>:<number>` runs that one again, and
`CRASH_SEED` makes other ones. When a kill strikes is up to the machine: those cases come again only in kind.
"""
