#!/bin/bash
# Make a member without data a new one of the cluster that the others are, if enough of them are there to go on without it.
set -euo pipefail
members=$(etcdctl member list)   # id, state, name, URL of peers, ...
healthy=$( (etcdctl endpoint health --write-out=simple 2>&1 || true) | grep -c ' is healthy' || true)
whole=$(wc -l <<< "$members")
if ((healthy < whole / 2 + 1)); then
    echo "$healthy of the other members are healthy, of a cluster of $whole: $((whole / 2 + 1)) are needed to take $MEMBER in" >&2
    exit 1
fi
while IFS=, read -r id _ _ url _; do
    if [[ ${url// /} == "$PEER_URL" ]]; then
        etcdctl member remove "$id" >&2
    fi
done <<< "$members"
# What it names includes the new member
added=$(etcdctl member add "$MEMBER" --peer-urls="$PEER_URL")
{
    grep '^ETCD_INITIAL_CLUSTER=' <<< "$added"
    echo ETCD_INITIAL_CLUSTER_STATE=existing
    echo ETCD_INITIAL_CLUSTER_TOKEN=groundcrew
} > /etc/etcd/join.env
