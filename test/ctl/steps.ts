/**
 * One script of all families of commands in all formats, in an order that makes the answers of every correct server the same. Lines are words
 * with blanks between; `'...'` keeps blanks together. `< text` at the end is the standard input (`\n` for line ends), `VAR=x` at the beginning a
 * variable.
 */
export const SCRIPT = `
# Keys, in every format.
put a 1
put a 2 --prev-kv
put a 3 --prev-kv -w json
put a 4 --prev-kv -w fields
put a 5 -w protobuf
put a 6 -w table
put b x -w fields
get a
get a -w json
get a -w fields
get a -w protobuf
get a -w table
get nothing
get nothing -w json
get nothing -w fields
get a c
get a --prefix -w json
get '' --prefix --keys-only
get '' --prefix --count-only -w fields
get '' --prefix --count-only
get '' --from-key
get ''
get a --from-key --limit 1 -w json
get a c --order DESCEND
get a c --order descend --sort-by MODIFY
get a c --sort-by VERSION
get a c --sort-by CREATE --order ASCEND
get a c --sort-by value
get a c --order X
get a c --sort-by FOO
get a --consistency s
get a --consistency z
get a --rev 2
get a --rev 999
get a --rev -1
get a --rev=x
get a --keys-only
get a --keys-only --count-only
get a --print-value-only
get a --print-value-only -w json
get a --hex
get a --hex -w json
get a --hex -w fields
get a b --min-mod-rev 5
get a c --max-mod-rev 6 --keys-only
get a c --min-create-rev 3 -w json
get a c --max-create-rev 2 -w json
get a --stream
get a c --stream -w json
get a c --stream --sort-by VALUE
get
get a b --prefix
get a b --from-key
get a --prefix --from-key
get a b c
get -- a
get a --foo
get a -x
get a --limit
get a --limit=x
get a --prefix=x
get a --command-timeout=x
get a --command-timeout 5
get a -w foo
put
put k
put k < from stdin\\n
get k
put k -- -dash
get k
put k extra words are ignored
put k '' --ignore-value
put k --ignore-value
get k
put missing --ignore-value
put k --lease zz
put k v --lease 1234
put k v --ignore-lease
put 'with blank' 'and ü'
get 'with blank'
get 'with blank' -w fields
get 'with blank' --hex
del
del a b c
del nothing
del nothing -w json
del nothing -w fields
del k --prev-kv
del 'with blank' --prev-kv -w json
put d1 x
put d2 x
put d3 x
del d1 --prev-kv -w fields
del d2 d3 --range
del d3 -w protobuf
del a b --prefix
put p/1 x
put p/2 y
del p/ --prefix
put z/1 x
del z --from-key --prev-kv
endpoint hashkv
endpoint hashkv -w json
endpoint hashkv -w fields
endpoint hashkv -w table
endpoint hashkv -w protobuf
endpoint hashkv --rev 3
endpoint hashkv --rev 999
pu abbreviated yes
gett
xyzzy
# Transactions.
txn < mod("a") > "0"\\n\\nput t 1\\nget a\\ndel nothing\\n\\nput t 2\\n\\n
txn -w json < mod("a") = "0"\\n\\nput t 1\\n\\nput t 2\\nget a\\nget '' --prefix --keys-only\\ndel t\\n\\n
txn -w fields < ver("a") < "9"\\nc("a") != "1"\\n\\nput u 1\\nget u\\ndel u --prev-kv\\n\\n\\n
txn -w protobuf < value("a") = "5"\\n\\nget a\\n\\n\\n
txn -w table < \\n\\n\\n
txn -i < create("a") > "0"\\n\\nget a\\n\\n\\n
txn < val("a") = "5"\\n\\nput 'quoted key' "with \\\\"escapes\\\\" \\\\x41\\\\t"\\nget 'quoted key'\\n\\n\\n
txn < version("nothing") = "0"\\n\\n\\n\\n
txn < val("b") > "a"\\n\\n\\n\\n
txn x
txn
txn < \\n
txn < mod("a") = "x"\\n\\n\\n\\n
txn < foo("a") = "1"\\n\\n\\n\\n
txn < mod(a) = "1"\\n\\n\\n\\n
txn < mod("a") "1"\\n\\n\\n\\n
txn < mod("a")\\n\\n\\n\\n
txn < mod("a") = 1\\n\\n\\n\\n
txn < create("a")>"0"\\n\\n\\n\\n
txn < nonsense\\n\\n\\n\\n
txn < \\nfoo a b\\n\\n\\n
txn < \\nput\\n\\n\\n
txn < \\nput a\\n\\n\\n
txn < \\nput a 1\\nput a 2\\n\\n\\n
txn < \\nget a --rev 999\\n\\n\\n
# Leases.
lease grant 600
lease grant 600 -w json
lease grant 600 -w fields
lease grant 600 -w table
lease grant
lease grant x
lease grant 99999999999
lease list -w table
lease revoke
lease revoke zz
lease revoke 1234
lease timetolive
lease timetolive zz
lease timetolive 1234
lease timetolive 1234 -w json
lease timetolive 1234 -w fields
lease keep-alive
lease keep-alive zz
lease keep-alive 1234
lease keep-alive --once 1234
lease
lease nonsense
# Members and endpoints.
member list
member list -w json
member list -w fields
member list -w table
member list --hex -w json
member list --hex -w fields
member list --consistency s
member add
member add x
member add x --peer-urls foo
member add x y
member add x http://y:1
member remove
member remove zz
member remove 123
member update
member update 123
member update 123 --peer-urls http://127.0.0.1:9
member promote
member promote 123
member add l1 --learner --peer-urls http://127.0.0.1:9
member add l2 --learner --peer-urls http://127.0.0.1:10
member add l1 --learner --peer-urls http://127.0.0.1:9
member
endpoint
endpoint nonsense
endpoint health
endpoint health -w json
endpoint health -w fields
endpoint health -w protobuf
endpoint health --cluster
endpoint status
endpoint status -w json
endpoint status -w fields
endpoint status -w protobuf
# Maintenance.
alarm list
alarm list -w json
alarm list -w fields
alarm list -w protobuf
alarm list -w table
alarm list x
alarm disarm
alarm disarm -w json
alarm disarm -w fields
alarm disarm x
defrag
compaction
compaction x
compaction 1 2
compaction 5
compaction 5
compaction 6 --physical
compaction 99999
get a --rev 3
move-leader
move-leader zz
move-leader 12
downgrade
downgrade validate
downgrade validate 3.6
downgrade validate 3.6 -w json
downgrade validate 3.6 -w fields
downgrade validate 3.4
downgrade validate 3.x
downgrade enable 3.4
downgrade cancel
snapshot save
snapshot save a b
snapshot
# Locks, elections, watches: what ends by itself.
lock
lock l1 true
lock l1 sh -- -c 'exit 7'
lock l1 echo one two
elect
elect e
elect e x -l
elect e x y
watch
watch a --
watch a b --prefix
watch a --rev 1
ETCDCTL_WATCH_KEY=a watch b
ETCDCTL_WATCH_RANGE_END=a watch
watch -i < foo\\n\\nwatch\\n
watch -i < watch a --foo\\n
watch -i < watch a b --prefix\\n
make-mirror
make-mirror a b
make-mirror a --dest-prefix x --no-dest-prefix
check
check perf --load foo
check datascale --load foo
check perf --prefix a
# Users and roles.
auth
auth status
auth status -w json
auth status -w fields
auth status x
auth enable
auth enable x
user list
role list
role add r1
role add r1
role add r2 -w json
role add r3 -w fields
role add
role list
role list -w json
role list -w fields
role list -w table
role get r1
role get r1 -w json
role get nothing
role grant-permission r1 read k
role grant-permission r1 write pre/ --prefix
role grant-permission r1 readwrite x y
role grant-permission r1 READ zz --from-key
role grant-permission r1 foo a
role grant-permission r1
role grant-permission r1 read a b --prefix
role grant-permission r1 read a --prefix --from-key
role grant-permission r2 read a -w json
role grant-permission r2 read a -w fields
role get r1
role get r1 -w json
role get r1 -w fields
role get r1 -w protobuf
role revoke-permission r1 x y
role revoke-permission r1 k
role revoke-permission r1 pre/ --prefix
role revoke-permission r1 zz --from-key
role revoke-permission r1 nothing
role revoke-permission r1
role delete r3
role delete r3
role delete r2 -w json
user add u1:pw
user add u1:pw
user add u2 --no-password
user add u3 --new-user-password x
user add u4 --interactive=false < secret\\n
user add u5 < one\\ntwo\\n
user add u5 < one\\none\\n
user add u6 < \\n
user add :x
user add
user add a b
user add u7:pw -w json
user add u8:pw -w fields
user list
user list -w json
user list -w fields
user get u1
user get u1 -w json
user get u1 -w fields
user get nothing
user grant-role u1 r1
user grant-role u1 nothing
user grant-role u1
user get u1
user get u1 --detail
user revoke-role u1 r1
user revoke-role u1 r1
user revoke-role u1
user passwd u1 --interactive=false < new\\n
user passwd u1 < a\\nb\\n
user passwd
user delete u8
user delete u8
user delete u7 -w json
user add root:pw
auth enable
get a
get a --user root:pw
get a --user root:wrong
get a --user root --password pw
get a --user root < pw\\n
get a --user u2:x
put a 7 --user u1:new
endpoint health
auth status
role get root --user root:pw
role get root --user root:pw -w json
user get root --user root:pw
auth disable --user root:pw
auth status -w json
user get root
# The tool itself.
version
version -w json
nosuch --help
completion
completion foo
help nonsense
get a --cert /x
get a --cert /x --key /y --cacert /z
get a --endpoints ''
ETCDCTL_WRITE_OUT=json get a
ETCDCTL_HEX=true get a
ETCDCTL_USER=nobody:x get a
ETCDCTL_WRITE_OUT=json get a -w fields
ETCDCTL_NONSENSE=1 get a
snapshot save /nonexistent/x
get a --endpoints 127.0.0.1:1 --command-timeout 300ms
endpoint health --endpoints 127.0.0.1:1 --command-timeout 300ms
endpoint status --endpoints 127.0.0.1:1 --command-timeout 300ms
endpoint hashkv --endpoints 127.0.0.1:1 --command-timeout 300ms
defrag --endpoints 127.0.0.1:1 --command-timeout 300ms
snapshot save x --endpoints 127.0.0.1:1,127.0.0.1:2
`;

export interface Step {
  readonly line: string;
  readonly words: readonly string[];
  readonly stdin: string;
  readonly environment: Readonly<Record<string, string>>;
}

export function parseScript(script: string): Step[] {
  return script
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [command = "", input = ""] = line.split(/ <(?: |$)/, 2);
      const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, kept, plain]) => kept ?? plain ?? "");
      const variables = words.filter((word) => /^ETCDCTL_\w+=/.test(word));
      return {
        line,
        words: words.slice(variables.length),
        stdin: input.replaceAll("\\n", "\n"),
        environment: Object.fromEntries(variables.map((word) => word.split("=", 2) as [string, string])),
      };
    });
}
