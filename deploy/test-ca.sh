#!/usr/bin/env bash
# Makes a certificate authority of your own and what it signs, for trying out TLS: not for a network that others use.
#
#   deploy/test-ca.sh DIR [NAME…]    NAMEs are what the coordinator is reached by: host names or IP addresses
#                                    (default: localhost 127.0.0.1 lockstep-coordinator)
#
# DIR then holds ca.pem, and coordinator, worker and operator, each as .pem (the certificate) and -key.pem. The
# authority's own key is deleted at the end, so nobody can sign more; run it again for new ones. DAYS=30 sets how long
# they are good for.
set -euo pipefail

dir=${1:?usage: deploy/test-ca.sh DIR [NAME…]}
shift
if [ $# -eq 0 ]; then set -- localhost 127.0.0.1 lockstep-coordinator; fi
days=${DAYS:-30}

main() {
    if ! command -v openssl >/dev/null; then
        echo "error: no openssl found; it makes the keys and signs: 'apt-get install openssl'" >&2
        exit 1
    fi
    if [ -e "$dir/ca.pem" ]; then
        echo "error: $dir/ca.pem is there already; choose another folder, or delete this one" >&2
        exit 1
    fi
    umask 077
    mkdir -p "$dir"
    key "$dir/ca-key.pem"
    quietly openssl req -x509 -new -key "$dir/ca-key.pem" -subj "/CN=lockstep test authority" -days "$days" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -out "$dir/ca.pem"
    sign coordinator serverAuth "$@"
    sign worker clientAuth lockstep-worker
    sign operator clientAuth lockstep-operator
    rm "$dir/ca-key.pem"
    cat <<END
coordinator --tls-cert $dir/coordinator.pem --tls-key $dir/coordinator-key.pem --client-ca $dir/ca.pem …
worker --coordinator https://$1:7400 --tls-ca $dir/ca.pem --tls-cert $dir/worker.pem --tls-key $dir/worker-key.pem …
coordinator status --addr https://$1:7400 --tls-ca $dir/ca.pem --tls-cert $dir/operator.pem --tls-key $dir/operator-key.pem
END
}

# sign WHO USAGE NAME…
sign() {
    local who=$1 usage=$2 names="" name
    shift 2
    for name in "$@"; do
        # An address is digits and dots, or has colons.
        if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then names+=",IP:$name"; else names+=",DNS:$name"; fi
    done
    key "$dir/$who-key.pem"
    quietly openssl req -new -key "$dir/$who-key.pem" -subj "/CN=lockstep $who" -out "$dir/$who.csr"
    quietly openssl x509 -req -in "$dir/$who.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -days "$days" \
        -set_serial "0x$(openssl rand -hex 8)" -out "$dir/$who.pem" \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "${names#,}" "$usage")
    rm "$dir/$who.csr"
}

key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# Shows what a command says only where it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || { printf '%s\n' "error: failed: $*" "$said" >&2; exit 1; }
}

main "$@"
