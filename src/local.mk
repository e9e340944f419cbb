# The fragments of all source folders, lower layers first. A new folder is one line here, one
# X_LIBS variable in Makefile.am and one row in the table of doc/development.md.

include %D%/port/local.mk
include %D%/common/local.mk
include %D%/io/local.mk
include %D%/ipc/local.mk
include %D%/config/local.mk
include %D%/engine/base/local.mk
include %D%/engine/wal/local.mk
include %D%/engine/memtable/local.mk
include %D%/engine/cache/local.mk
include %D%/engine/sstable/local.mk
include %D%/engine/version/local.mk
include %D%/engine/compaction/local.mk
include %D%/engine/db/local.mk
include %D%/protocol/local.mk
include %D%/client/local.mk
include %D%/libaidb/local.mk
include %D%/backend/local.mk
include %D%/postmaster/local.mk
include %D%/bin/aidb/local.mk
include %D%/bin/aidbctl/local.mk
include %D%/bin/aidbsql/local.mk
include %D%/bin/aidbbench/local.mk
include %D%/torture/local.mk
include %D%/testlib/local.mk
include %D%/fuzz/local.mk
