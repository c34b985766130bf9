{{ ansible_managed | comment }}
# What a process says of its servers ("show servers state"), as the next one may have it: whether they are up, and who has taken them out.
# HAProxy would restore their ports too, and whether to speak TLS to them, over what its configuration says now.
FNR == NR {
    if ($1 == "listen") proxy = $2
    if ($1 == "server") {
        place = $3
        port[proxy, $2] = sub(/^unix@/, "", place) ? 0 : place
        sub(/^.*:/, "", port[proxy, $2])
    }
    next
}
NF > 20 && $1 ~ /^[0-9]/ {
    if (!(($2, $4) in port)) next
    $19 = port[$2, $4]
    # The 21st is whether to speak TLS
    NF = 20
}
{ print }
