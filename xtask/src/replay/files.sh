#!/bin/sh
# Lists all files, but for those of root, and what dpkg and systemd keep for themselves.
find / -xdev -printf '%y %m %u:%g %p %l\n' |
    grep -vE ' /(root|tmp|var/tmp|var/log|var/lib/systemd)(/| )| /var/lib/dpkg/(lock|triggers|.*-old)' | sort
