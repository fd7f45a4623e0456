"""Whatever bytes come, the server answers in its own words, loses no connection and holds nobody up.

`make test` runs a few hundred inputs; `make fuzz` (`FUZZ_SIZE=full`) runs 50,000 and prints the figures. An
input is made from the seed and its number alone: `FUZZ_SEED=<seed> FUZZ_CASE=<number>` sends that one again,
`FUZZ_CASES=<n>` bounds how many are sent. Every input that ever failed is kept in `corpus/` and sent first.
"""
