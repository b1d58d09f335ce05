# A failure here ends /init, and so the machine, with a kernel message.
set -e
mkdir /debian
mount -t tmpfs -o mode=755,size=90% debian /debian
tar -xf /root.tar -C /debian
rm /root.tar
cp -a /overlay/. /debian
modules=/debian/lib/modules/$(uname -r)
mkdir -p $modules
cp /lib/modules/*.ko $modules
touch $modules/modules.order $modules/modules.builtin $modules/modules.builtin.modinfo
chroot /debian /sbin/depmod
mkdir -p /debian/etc/systemd/system/multi-user.target.wants
ln -s ../replay.service /debian/etc/systemd/system/multi-user.target.wants/
# A login prompt would come between the lines of the replay.
ln -s /dev/null /debian/etc/systemd/system/getty.target
umount /proc /sys
mount --move /dev /debian/dev
exec switch_root /debian /sbin/init
