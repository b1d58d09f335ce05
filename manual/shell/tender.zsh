_tender_unikernel() {
    (( CURRENT == 2 )) && compadd inspect
    _files
}

# A separate command line, recognised by its first argument.
_tender_inspect() {
    [[ $words[2] == inspect ]] && (( CURRENT > 2 )) || return 1
    shift words
    (( CURRENT-- ))
    _arguments '--json[Print one JSON object]' '(-h --help)'{-h,--help}'[Print a text and end]' ':UNIKERNEL:_files'
    return 0
}
