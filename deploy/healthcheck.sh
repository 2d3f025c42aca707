#!/bin/bash
# Asks the management port of this container: exit 0 if it answers 200. The image has no curl.
#
#     sluice-healthcheck /healthz|/readyz
set -u

exec 3<>"/dev/tcp/127.0.0.1/${SLUICE_MANAGEMENT_PORT:-8090}" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/healthz}" >&3
read -r -t 4 _ status _ <&3
[[ ${status:-} == 200 ]]
