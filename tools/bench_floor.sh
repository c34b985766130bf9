#!/bin/sh
# The floor of `make bench`: what a shell script written for this one host has to do, with no question asked about what is there
# already. It runs as root, in the folder of what tools/bench.py has taken from a converged host: `packages` and `units` (names),
# `files.tar` (configuration and certificates), `release.tar.gz` (the built application), `database.sql`.
set -eu
cd "$(dirname "$0")"
app=$1 release=$2
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
home=/srv/$app/releases/$release

apt-get -q update
# Read when the cluster is made
tar -xpf files.tar -C / etc/postgresql-common/createcluster.d
xargs apt-get -qy install --no-install-recommends < packages
useradd --system --home-dir "/srv/$app/shared" --no-create-home --shell /usr/sbin/nologin "$app"
systemctl disable --quiet --now redis-server.service
tar -xpf files.tar -C /
systemctl daemon-reload

install -d -m 0755 "$home"
install -d -m 0750 -o "$app" -g "$app" "/srv/$app/shared"
tar -xzf release.tar.gz -C "$home" --strip-components=1 --no-same-owner
python3 -m venv "$home/venv"
"$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-cache-dir --no-deps --no-compile \
  --require-hashes --find-links "$home/wheels" --requirement "$home/requirements.txt"
"$home/venv/bin/python" -m compileall -qq -j 0 "$home/venv/lib" "$home/src" || true
rm -r "$home/wheels"
ln -s "releases/$release" "/srv/$app/current"

systemctl restart groundcrew-firewall.service 'postgresql@*.service'
for instance in broker cache; do install -d -m 0750 -o redis -g redis "/var/lib/redis/$instance"; done
su postgres -c 'psql --quiet --set ON_ERROR_STOP=1' < database.sql
xargs systemctl restart < units
systemd-run --wait --pipe --collect --quiet --unit="$app-migrate-$release" /usr/bin/env --chdir="$home/src" \
  PATH="$home/venv/bin:/usr/bin:/bin" RELEASE_ID="$release" alembic upgrade head
curl --fail --silent --show-error --retry 60 --retry-delay 1 --retry-all-errors --max-time 60 --insecure https://localhost/readyz
