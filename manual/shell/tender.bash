
# The function above completes options. This one adds three rules that bash lacks: ':' and '=' are
# part of an option, an option may contain a device name, and options end at UNIKERNEL.
_tender_arguments() {
    local valued=" @VALUED@ "
    local line="${COMP_LINE:0:COMP_POINT}" args arg current option="" index
    read -ra args <<<"$line"
    current=""
    if [[ $line != *[[:space:]] ]]; then
        current="${args[${#args[@]} - 1]}"
        unset "args[${#args[@]} - 1]"
    fi
    COMPREPLY=()
    if [[ ${args[1]} == inspect ]]; then
        [[ $current != -* ]] || _tender "$1" "$current" inspect
        return
    fi
    for ((index = 1; index < ${#args[@]}; index++)); do
        arg="${args[index]}"
        if [[ -n $option ]]; then
            option=""
        elif [[ $arg == -- || $arg != -* ]]; then
            # The rest is the unikernel or its arguments: complete files.
            return
        elif [[ $arg != *=* && $valued == *" ${arg#--} "* || $arg == --*:* && $arg != *=* ]]; then
            option="${arg%%:*}"
        fi
    done
    if [[ -z $option && $current == --*[:=]* ]]; then
        option="${current%%[:=]*}"
        # Device names are unknown here, and are not file names.
        [[ $current == *=* ]] || { compopt +o default +o bashdefault; return; }
        current="${current#*=}"
    fi
    if [[ $option == --net ]]; then
        COMPREPLY=($(cd /sys/class/net 2>/dev/null && compgen -f -- "$current"))
    elif [[ -n $option ]]; then
        _tender "$1" "${current##*[:=]}" "$option"
    elif [[ $current == -* ]]; then
        _tender "$1" "$current" ""
        [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *: ]] || compopt -o nospace
    elif [[ ${#args[@]} -eq 1 ]]; then
        # `inspect` is the only argument that is not a file name; readline completes file names.
        compopt -o filenames
        COMPREPLY=($(compgen -W inspect -- "$current") $(compgen -f -- "$current"))
    fi
}

complete -F _tender_arguments -o bashdefault -o default tender solo5-hvt
