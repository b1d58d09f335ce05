
# Device names are unknown here, and are not file names; nor are the values of all device options.
complete -c tender -f -n "string match --quiet --regex -- '^--[a-z-]+:[^=]*\$|^--(@PLAIN@)' (commandline -ct)"
complete -c tender -f -n "string match --quiet -- '--net:*=*' (commandline -ct)" \
    -a "(string replace --regex '=.*' '=' -- (commandline -ct))(__fish_print_interfaces)"
