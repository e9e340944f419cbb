# Mistakes in aidb.yaml: each is an error with line and column, and never blocks stop and status.
. "$AIDB_REGRESS/lib.sh"

server_init data
cp data/aidb.yaml good.yaml

# wrong WHAT REGEX TEXT…: aidb.yaml with the text appended must not pass, for a reason like REGEX.
wrong() {
    local what=$1 regex=$2
    { cat good.yaml; printf '%s\n' "${@:3}"; } >data/aidb.yaml
    exits 1 "$what" aidbctl check-config
    like "$out$err" "$regex" "$what: says so"
    like "$out$err" 'aidb\.yaml:[0-9]+:[0-9]+' "$what: with line and column"
}

wrong 'unknown key' 'no_such_key' 'no_such_key: 1'
wrong 'wrong type' 'max_connections' 'max_connections: many'
wrong 'out of range' 'max_connections' 'max_connections: -1'
wrong 'far out of range' 'max_connections' 'max_connections: 99999999999999999999'
wrong 'a size with an unknown unit' 'memory' 'memory: 5XB'
wrong 'not YAML' 'aidb\.yaml' '{{{'
wrong 'a list where a value belongs' 'max_connections' 'max_connections: [1, 2]'
wrong 'an anchor' 'aidb\.yaml' 'max_connections: &x 5'
wrong 'a key twice' 'max_connections' 'max_connections: 5' 'max_connections: 6'
wrong 'a mode of a later version' 'not in this version' 'mode: replica'
wrong 'another mode of a later version' 'not in this version' 'mode: coordinator'

exits 1 'start refuses' aidbctl start -t 10
exits 3 'and nothing runs' aidbctl status

cp good.yaml data/aidb.yaml
server_start
wrong 'while running' 'no_such_key' 'no_such_key: 1'
exits 1 'reload refuses' aidbctl reload
like "$out$err" 'no_such_key' 'and names the key'
exits 1 'restart refuses' aidbctl restart
is "$(server_pid_now)" "$server_pid" 'and leaves the server alone'
exits 0 'status works' aidbctl status
exits 0 'aidbsql -D works' aidbsql -D data -c 'PUT a 1'
exits 0 'stop works' aidbctl stop
exits 3 'it has stopped' aidbctl status
done_testing
