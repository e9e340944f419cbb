#!/bin/sh
# Generates configure and Makefile.in. Needed in a git checkout only: a release tarball carries
# the generated files. Everything it writes is ignored by git.
set -e

cd "$(dirname "$0")"
mkdir -p m4
exec autoreconf --install --force "$@"
