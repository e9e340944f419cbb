/* seeds.h - inputs to begin with. */
#ifndef AIDB_FUZZ_SEEDS_H
#define AIDB_FUZZ_SEEDS_H

/* Writes seeds for `table`, `block`, `session` and `replies` into a folder of that name in `folder`. */
void seeds_write(const char *folder);

#endif
