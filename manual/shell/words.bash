
# The function above knows the options. This one knows what bash does not: that ':' and '=' belong to an option, that
# the name of a device may stand in it, and that options end at UNIKERNEL.
_tender_words() {
    local valued=" @VALUED@ "
    local line="${COMP_LINE:0:COMP_POINT}" words word current option="" index
    read -ra words <<<"$line"
    current=""
    if [[ $line != *[[:space:]] ]]; then
        current="${words[${#words[@]} - 1]}"
        unset "words[${#words[@]} - 1]"
    fi
    COMPREPLY=()
    if [[ ${words[1]} == inspect ]]; then
        [[ $current != -* ]] || _tender "$1" "$current" inspect
        return
    fi
    for ((index = 1; index < ${#words[@]}; index++)); do
        word="${words[index]}"
        if [[ -n $option ]]; then
            option=""
        elif [[ $word == -- || $word != -* ]]; then
            # What follows is the guest's, or the unikernel itself: files are as good a guess as any.
            return
        elif [[ $word != *=* && $valued == *" ${word#--} "* || $word == --*:* && $word != *=* ]]; then
            option="${word%%:*}"
        fi
    done
    if [[ -z $option && $current == --*[:=]* ]]; then
        option="${current%%[:=]*}"
        # The name of a device is not known here, and no file is one.
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
    elif [[ ${#words[@]} -eq 1 ]]; then
        # The one word that is no file's name; those come from readline.
        compopt -o filenames
        COMPREPLY=($(compgen -W inspect -- "$current") $(compgen -f -- "$current"))
    fi
}

complete -F _tender_words -o bashdefault -o default tender solo5-hvt
