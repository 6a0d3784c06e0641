#!/usr/bin/env bash
# Puts the four IDX files of Fashion-MNIST (70,000 labelled images, 28×28, MIT licence) into a folder.
#
#   deploy/fashion-mnist.sh DEST
#
# Needs no root. FASHION_MNIST=DIR takes the files, plain or .gz, from DIR instead.
set -euo pipefail

# sha256 of the plain files: the .gz files differ between Debian and the publisher.
readonly HASHES="\
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte"
readonly PACKAGE=dataset-fashion-mnist
readonly INSTALLED=usr/share/datasets/fashion-mnist
readonly PUBLIC=https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion

main() {
    local dest=${1:?usage: fashion-mnist.sh DEST}
    mkdir -p "$dest"
    if whole "$dest" &>/dev/null; then
        return
    fi
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    echo "fetching Fashion-MNIST: (c) 2017 Zalando SE, MIT licence, github.com/zalandoresearch/fashion-mnist"
    if [[ -n ${FASHION_MNIST:-} ]]; then
        unpack "$FASHION_MNIST"
    elif [[ -d /$INSTALLED ]]; then
        unpack "/$INSTALLED"
    elif from_apt; then
        unpack "$temp/root/$INSTALLED"
    else
        from_publisher
        unpack "$temp"
    fi
    whole "$temp/plain" || fail "the files are not those that were pinned (above); nothing was put into $dest"
    mv "$temp/plain"/* "$dest"
    echo "Fashion-MNIST is in $dest"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

# Are all four files in the folder, with the right content?
whole() {
    (cd "$1" && if command -v sha256sum >/dev/null; then sha256sum --quiet -c -; else shasum -q -a 256 -c -; fi) \
        <<<"$HASHES"
}

names() {
    awk '{ print $2 }' <<<"$HASHES"
}

unpack() {
    local name
    mkdir "$temp/plain"
    for name in $(names); do
        if [[ -f $1/$name ]]; then
            cp "$1/$name" "$temp/plain/"
        elif [[ -f $1/$name.gz ]]; then
            gzip -dc "$1/$name.gz" >"$temp/plain/$name"
        else
            fail "no $name or $name.gz in $1"
        fi
    done
}

# Debian and Ubuntu: the package, downloaded and unpacked without installing it.
from_apt() {
    command -v apt-get >/dev/null || return 1
    if ! download_package && ! with_lists_of_our_own; then
        echo "apt-get has no $PACKAGE; trying the publisher's address"
        return 1
    fi
    dpkg-deb -x "$temp/$PACKAGE"_*.deb "$temp/root"
}

# Options are handed on to apt-get. Its sandbox user can't write into our folder, and need not.
download_package() {
    (cd "$temp" && apt-get -q -o APT::Sandbox::User="$(id -un)" "$@" download "$PACKAGE") 2>>"$temp/apt.log"
}

# A fresh container has no package lists, and a normal user can't write the system's.
with_lists_of_our_own() {
    local own=(-o Dir::State::lists="$temp/lists" -o Dir::Cache="$temp/cache" -o APT::Sandbox::User="$(id -un)")
    mkdir -p "$temp/lists/partial" "$temp/cache/archives/partial"
    if apt-get -q "${own[@]}" update 2>>"$temp/apt.log" && download_package "${own[@]}"; then
        return
    fi
    cat "$temp/apt.log" >&2
    return 1
}

# Not tried: the address could not be reached from where this was written.
from_publisher() {
    local name
    for name in $(names); do
        python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
            "$PUBLIC/$name.gz" "$temp/$name.gz" 2>"$temp/python.log" ||
            fail "could not fetch $PUBLIC/$name.gz ($(tail -n 1 "$temp/python.log")); set FASHION_MNIST to a folder that holds it"
    done
}

main "$@"
