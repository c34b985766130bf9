#!/bin/sh
# Make a virtual environment from a hashed lock file, and again when the lock changes: venv.sh FOLDER LOCK [PROJECT]
# Plain pip, so that the operator's pip.conf, mirrors, proxies and CA bundles decide.
set -eu
folder=$1 lock=$2 project=${3:-}

stamp=$(cksum < "$lock")
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && "$folder/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

python=
# The distribution's first: it is optimised, as those that version managers compile often are not
for candidate in "${PYTHON:-/usr/bin/python3}" python3 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: Python 3.11 or newer is needed, and python3 is $(python3 -V 2>&1 || echo missing), or lacks its module venv" >&2
  echo "What to do: apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04 or newer), or: make PYTHON=/path/to/python3" >&2
  exit 1
fi

begin=$(date +%s)
printf 'Python packages of %s into %s ... ' "$lock" "$folder"
# A new lock is installed over the old one: rebuilding would break whatever runs from it now
"$folder/bin/python" -c 'import pip' 2>/dev/null || { rm -rf "$folder" && "$python" -m venv "$folder"; }
# Compiling everything ahead takes longer than what the tools then save
"$folder/bin/pip" install -qq --disable-pip-version-check --no-compile --require-hashes -r "$lock"
[ -z "$project" ] || "$folder/bin/pip" install -qq --disable-pip-version-check --no-deps --editable "$project"
echo "$stamp" > "$folder/.stamp"
echo "$(($(date +%s) - begin)) s"
