#!/bin/sh
# Install Debian's Chromium for the browser test, where that takes no question: as root, with apt.
# Without it, or without a network, the browser test is skipped and says why.
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || exit 0

export DEBIAN_FRONTEND=noninteractive
apt="apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20"
echo "installing chromium for the browser test"
{ timeout 120 $apt update && timeout 600 $apt install -y --no-install-recommends chromium; } \
    >/dev/null 2>&1 || echo "chromium could not be installed: the browser test will be skipped"
