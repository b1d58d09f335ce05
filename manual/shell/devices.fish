
# The names of devices are not known here, and no file is one; nor is a file the value of each.
complete -c tender -f -n "string match --quiet --regex -- '^--[a-z-]+:[^=]*\$|^--(@PLAIN@)' (commandline -ct)"
complete -c tender -f -n "string match --quiet -- '--net:*=*' (commandline -ct)" \
    -a "(string replace --regex '=.*' '=' -- (commandline -ct))(__fish_print_interfaces)"
