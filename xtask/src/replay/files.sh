#!/bin/sh
# Lists all files, except those of root and the private files of dpkg and systemd.
find / -xdev -printf '%y %m %u:%g %p %l\n' |
    grep -vE ' /(root|tmp|var/tmp|var/log|var/lib/systemd)(/| )| /var/lib/dpkg/(lock|triggers|.*-old)' | sort
