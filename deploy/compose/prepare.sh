#!/bin/sh
# Makes what compose.yaml mounts: a folder for each party with study and records, keys, room for state, and .env.
#
#   ./prepare.sh
#
# It needs cutlayer on this machine, or in the image:
#   CUTLAYER="docker run --rm --user $(id -u):$(id -g) --volume $PWD:/here --workdir /here cutlayer" ./prepare.sh
set -eu
cd "$(dirname "$0")"
cutlayer=${CUTLAYER:-cutlayer}
parties="server hospital-a hospital-b"

for folder in parties keys state; do
    if [ -e "$folder" ]; then
        echo "$folder/ is there already, and nothing is overwritten: move parties/, keys/ and state/ away" >&2
        exit 1
    fi
done
umask 077

$cutlayer deal study.toml --out parties
$cutlayer keys init keys/authority --study digits
for party in $parties; do
    # The server is reached by the name of its service.
    host=
    [ "$party" = server ] && host="--host server --host localhost"
    # shellcheck disable=SC2086
    $cutlayer keys issue "$party" --authority keys/authority --out "keys/$party" $host
    mkdir -p "state/$party"
done

# In a real study each party reads its own statement, on its own machine, and approves for itself.
$cutlayer describe parties/server/study.toml > statement.txt
cat statement.txt
digest=$(sed -n 's/^Study .*(digest \([0-9a-f]*\)).*$/\1/p' statement.txt)
[ -n "$digest" ] || { echo "cutlayer describe shows no digest" >&2; exit 1; }

# The containers run as the user who owns these folders, and never as root.
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
    user=10001:10001
    chown -R "$user" parties keys state
fi
printf 'CUTLAYER_USER=%s\nCUTLAYER_APPROVE=%s\n' "$user" "$digest" > .env
echo
echo "Above (and in statement.txt) is what would leave the parties. To approve it and train: docker compose build && docker compose up"
