package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

type environment struct {
	endpoints []string
	client    *clientv3.Client
	callers   int
	numbers   int
	atOnce    int
}

type named struct {
	name string
	run  func(env *environment) error
}

// All checks, in the order in which they run. Each works below a prefix of its own.
var checks = []named{
	{"put-get-delete", putGetDelete},
	{"ranges", ranges},
	{"range-stream", rangeStream},
	{"history-and-compaction", history},
	{"txn", txn},
	{"txn-refused", txnRefused},
	{"large-values", largeValues},
	{"gzip", compressed},
	{"deadlines", deadlines},
	{"watch", watch},
	{"watch-many", watchMany},
	{"watch-fragments", watchFragments},
	{"watch-compacted", watchCompacted},
	{"watch-progress", watchProgress},
	{"watch-require-leader", watchRequireLeader},
	{"lease", lease},
	{"lease-expiry", leaseExpiry},
	{"lease-keepalive-many", leaseMany},
	{"mutex", mutex},
	{"election", election},
	{"sequence-stm-serializable", func(env *environment) error {
		return sequenceBySTM(env, concurrency.SerializableSnapshot, "serializable")
	}},
	{"sequence-stm-repeatable-reads", func(env *environment) error { return sequenceBySTM(env, concurrency.RepeatableReads, "repeatable") }},
	{"sequence-mutex", sequenceByMutex},
	{"queue", queue},
	{"priority-queue", priorityQueue},
	{"barrier", barrier},
	{"double-barrier", doubleBarrier},
	{"rwmutex", rwMutex},
	{"namespace", namespaced},
	{"ordering", ordered},
	{"leasing", leased},
	{"mirror", mirrored},
	{"cluster", cluster},
	{"maintenance", maintenance},
	{"snapshot", snapshot},
}

// Those that wait for seconds to pass.
var slow = map[string]bool{"lease-expiry": true, "lease-keepalive-many": true}

func check(endpoints []string, only string, callers, numbers, atOnce int, short bool) int {
	env := &environment{endpoints: endpoints, client: dial(endpoints), callers: callers, numbers: numbers, atOnce: atOnce}
	defer env.client.Close()
	passed, failed := 0, 0
	for _, one := range checks {
		if !strings.Contains(one.name, only) || (short && slow[one.name]) {
			continue
		}
		begin := time.Now()
		if err := one.run(env); err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", one.name, err)
			continue
		}
		passed++
		fmt.Printf("PASS %s (%s)\n", one.name, time.Since(begin).Round(time.Millisecond))
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1
	}
	return 0
}

func want(what string, got, wanted any) error {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		return fmt.Errorf("%s: got %v, wanted %v", what, got, wanted)
	}
	return nil
}

func wantError(what string, got, wanted error) error {
	if !errors.Is(got, wanted) {
		return fmt.Errorf("%s: got %v, wanted %v", what, got, wanted)
	}
	return nil
}

func first(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// together runs n callers and gives their first error.
func together(n int, run func(i int) error) error {
	results := make(chan error, n)
	for i := range n {
		go func() { results <- run(i) }()
	}
	var err error
	for range n {
		if one := <-results; err == nil {
			err = one
		}
	}
	return err
}

func putGetDelete(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	put, err := env.client.Put(ctx, "kv/a", "1")
	if err != nil {
		return err
	}
	again, err := env.client.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	got, err := env.client.Get(ctx, "kv/a")
	if err != nil {
		return err
	}
	deleted, err := env.client.Delete(ctx, "kv/a", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	gone, err := env.client.Get(ctx, "kv/a")
	if err != nil {
		return err
	}
	_, empty := env.client.Put(ctx, "", "x")
	_, missing := env.client.Put(ctx, "kv/none", "", clientv3.WithIgnoreValue())
	return first(
		want("previous", string(again.PrevKv.Value), "1"),
		want("revision", again.Header.Revision, put.Header.Revision+1),
		want("value", string(got.Kvs[0].Value), "2"),
		want("version", got.Kvs[0].Version, 2),
		want("create revision", got.Kvs[0].CreateRevision, put.Header.Revision),
		want("deleted", deleted.Deleted, 1),
		want("deleted pair", string(deleted.PrevKvs[0].Value), "2"),
		want("count after", gone.Count, 0),
		wantError("empty key", empty, rpctypes.ErrEmptyKey),
		wantError("ignored value of no key", missing, rpctypes.ErrKeyNotFound),
	)
}

func ranges(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	for i := range 25 {
		if _, err := env.client.Put(ctx, fmt.Sprintf("range/%02d", i), fmt.Sprint(100-i)); err != nil {
			return err
		}
	}
	limited, err := env.client.Get(ctx, "range/", clientv3.WithPrefix(), clientv3.WithLimit(10))
	if err != nil {
		return err
	}
	sorted, err := env.client.Get(ctx, "range/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(1))
	if err != nil {
		return err
	}
	last, err := env.client.Get(ctx, "range/", clientv3.WithLastCreate()...)
	if err != nil {
		return err
	}
	keys, err := env.client.Get(ctx, "range/", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithSerializable())
	if err != nil {
		return err
	}
	count, err := env.client.Get(ctx, "range/10", clientv3.WithRange("range/20"), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	from, err := env.client.Get(ctx, "range/20", clientv3.WithFromKey(), clientv3.WithLimit(2))
	if err != nil {
		return err
	}
	return first(
		want("limited", len(limited.Kvs), 10), want("more", limited.More, true), want("count", limited.Count, 25),
		want("lowest value", string(sorted.Kvs[0].Key), "range/00"),
		want("last created", string(last.Kvs[0].Key), "range/24"),
		want("keys only", len(keys.Kvs[3].Value), 0), want("keys", len(keys.Kvs), 25),
		want("count only", count.Count, 10), want("no pairs", len(count.Kvs), 0),
		want("from key", string(from.Kvs[1].Key), "range/21"),
	)
}

func history(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	var revisions []int64
	for i := range 5 {
		put, err := env.client.Put(ctx, "history", fmt.Sprint(i))
		if err != nil {
			return err
		}
		revisions = append(revisions, put.Header.Revision)
	}
	for i, revision := range revisions {
		got, err := env.client.Get(ctx, "history", clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		if err := want("value then", string(got.Kvs[0].Value), fmt.Sprint(i)); err != nil {
			return err
		}
	}
	_, future := env.client.Get(ctx, "history", clientv3.WithRev(revisions[4]+1000))
	if _, err := env.client.Compact(ctx, revisions[3], clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, compacted := env.client.Get(ctx, "history", clientv3.WithRev(revisions[2]))
	_, again := env.client.Compact(ctx, revisions[3])
	kept, err := env.client.Get(ctx, "history", clientv3.WithRev(revisions[3]))
	if err != nil {
		return err
	}
	return first(
		wantError("future", future, rpctypes.ErrFutureRev),
		wantError("compacted", compacted, rpctypes.ErrCompacted),
		wantError("compacted again", again, rpctypes.ErrCompacted),
		want("at the compaction", string(kept.Kvs[0].Value), "3"),
	)
}

func txn(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	if _, err := env.client.Put(ctx, "txn/a", "1"); err != nil {
		return err
	}
	taken, err := env.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("txn/a"), "=", "1"), clientv3.Compare(clientv3.CreateRevision("txn/none"), "=", 0)).
		Then(clientv3.OpPut("txn/b", "2"), clientv3.OpGet("txn/", clientv3.WithPrefix()), clientv3.OpDelete("txn/a"),
			clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("txn/c", "3")}, nil)).
		Else(clientv3.OpGet("txn/a")).Commit()
	if err != nil {
		return err
	}
	other, err := env.client.Txn(ctx).If(clientv3.Compare(clientv3.Version("txn/b"), ">", 5)).Else(clientv3.OpGet("txn/b")).Commit()
	if err != nil {
		return err
	}
	return first(
		want("taken", taken.Succeeded, true),
		want("seen inside", len(taken.Responses[1].GetResponseRange().Kvs), 2),
		want("deleted inside", taken.Responses[2].GetResponseDeleteRange().Deleted, 1),
		want("nested", taken.Responses[3].GetResponseTxn().Succeeded, true),
		want("other", other.Succeeded, false),
		want("read", string(other.Responses[0].GetResponseRange().Kvs[0].Value), "2"),
	)
}

func txnRefused(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	_, twice := env.client.Txn(ctx).Then(clientv3.OpPut("txn/x", "1"), clientv3.OpPut("txn/x", "2")).Commit()
	many := make([]clientv3.Op, 200)
	for i := range many {
		many[i] = clientv3.OpGet(fmt.Sprintf("txn/%d", i))
	}
	_, tooMany := env.client.Txn(ctx).Then(many...).Commit()
	return first(wantError("twice", twice, rpctypes.ErrDuplicateKey), wantError("too many", tooMany, rpctypes.ErrTooManyOps))
}

func largeValues(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	value := strings.Repeat("large", 200_000)
	err := together(16, func(i int) error {
		key := fmt.Sprintf("large/%d", i)
		if _, err := env.client.Put(ctx, key, value); err != nil {
			return err
		}
		got, err := env.client.Get(ctx, key)
		if err != nil {
			return err
		}
		return want("same value", string(got.Kvs[0].Value) == value, true)
	})
	if err != nil {
		return err
	}
	all, err := env.client.Get(ctx, "large/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	_, tooLarge := env.client.Put(ctx, "large/x", strings.Repeat("x", 1_600_000))
	_, _ = env.client.Delete(ctx, "large/", clientv3.WithPrefix())
	return first(want("all", len(all.Kvs), 16), wantError("too large", tooLarge, rpctypes.ErrRequestTooLarge))
}

func compressed(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: env.endpoints, DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip"))}})
	if err != nil {
		return err
	}
	defer client.Close()
	watching := client.Watch(ctx, "gzip", clientv3.WithCreatedNotify())
	<-watching
	value := strings.Repeat("compressible ", 10_000)
	if _, err := client.Put(ctx, "gzip", value); err != nil {
		return err
	}
	got, err := client.Get(ctx, "gzip")
	if err != nil {
		return err
	}
	seen := <-watching
	return first(want("same value", string(got.Kvs[0].Value) == value, true), want("same event", string(seen.Events[0].Kv.Value) == value, true))
}

func deadlines(env *environment) error {
	session, err := concurrency.NewSession(env.client)
	if err != nil {
		return err
	}
	defer session.Close()
	held := concurrency.NewMutex(session, "deadline/lock")
	if err := held.Lock(context.Background()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	other, err := concurrency.NewSession(env.client)
	if err != nil {
		return err
	}
	defer other.Close()
	late := concurrency.NewMutex(other, "deadline/lock").Lock(ctx)
	cancelled, stop := context.WithCancel(context.Background())
	stop()
	_, gone := env.client.Put(cancelled, "deadline/x", "1")
	return first(wantError("late", late, context.DeadlineExceeded), wantError("cancelled", gone, context.Canceled))
}

func watch(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	put, err := env.client.Put(ctx, "watch/a", "1")
	if err != nil {
		return err
	}
	if _, err := env.client.Put(ctx, "watch/a", "2"); err != nil {
		return err
	}
	watching := env.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision), clientv3.WithPrevKV())
	if _, err := env.client.Txn(ctx).Then(clientv3.OpPut("watch/b", "3"), clientv3.OpDelete("watch/a")).Commit(); err != nil {
		return err
	}
	var seen []string
	for len(seen) < 4 {
		response, ok := <-watching
		if !ok {
			return errors.New("the watch ended")
		}
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			previous := ""
			if event.PrevKv != nil {
				previous = string(event.PrevKv.Value)
			}
			seen = append(seen, fmt.Sprintf("%s %s=%s was %s", event.Type, event.Kv.Key, event.Kv.Value, previous))
		}
	}
	return want("events", strings.Join(seen, ", "), "PUT watch/a=1 was , PUT watch/a=2 was 1, PUT watch/b=3 was , DELETE watch/a= was 2")
}

func watchMany(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	const watchers = 1000
	var channels [watchers]clientv3.WatchChan
	for i := range channels {
		channels[i] = env.client.Watch(ctx, fmt.Sprintf("many/%03d", i), clientv3.WithCreatedNotify())
	}
	for _, channel := range channels {
		if response := <-channel; !response.Created {
			return errors.New("not created")
		}
	}
	if err := together(50, func(i int) error {
		for n := i; n < watchers; n += 50 {
			for round := range 3 {
				if _, err := env.client.Put(ctx, fmt.Sprintf("many/%03d", n), fmt.Sprint(round)); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for i, channel := range channels {
		for round := 0; round < 3; {
			response, ok := <-channel
			if !ok {
				return fmt.Errorf("watch %d ended", i)
			}
			for _, event := range response.Events {
				if err := want(fmt.Sprintf("event of %d", i), string(event.Kv.Value), fmt.Sprint(round)); err != nil {
					return err
				}
				round++
			}
		}
	}
	return nil
}

func watchFragments(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	var begin int64
	value := strings.Repeat("f", 1_000_000)
	for i := range 10 {
		put, err := env.client.Put(ctx, fmt.Sprintf("fragment/%d", i), value)
		if err != nil {
			return err
		}
		if i == 0 {
			begin = put.Header.Revision
		}
	}
	defer env.client.Delete(context.Background(), "fragment/", clientv3.WithPrefix())
	watching := env.client.Watch(ctx, "fragment/", clientv3.WithPrefix(), clientv3.WithRev(begin), clientv3.WithFragment())
	seen := 0
	for seen < 10 {
		response, ok := <-watching
		if !ok || response.Err() != nil {
			return fmt.Errorf("the watch ended: %v", response.Err())
		}
		seen += len(response.Events)
	}
	return want("events", seen, 10)
}

func watchCompacted(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	put, err := env.client.Put(ctx, "compacted", "1")
	if err != nil {
		return err
	}
	later, err := env.client.Put(ctx, "compacted", "2")
	if err != nil {
		return err
	}
	if _, err := env.client.Compact(ctx, later.Header.Revision); err != nil {
		return err
	}
	response := <-env.client.Watch(ctx, "compacted", clientv3.WithRev(put.Header.Revision))
	return first(
		wantError("compacted", response.Err(), rpctypes.ErrCompacted),
		want("revision", response.CompactRevision, later.Header.Revision),
	)
}

func watchProgress(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	watching := env.client.Watch(ctx, "progress", clientv3.WithCreatedNotify())
	<-watching
	put, err := env.client.Put(ctx, "elsewhere", "1")
	if err != nil {
		return err
	}
	for {
		if err := env.client.RequestProgress(ctx); err != nil {
			return err
		}
		select {
		case response := <-watching:
			if !response.IsProgressNotify() {
				return errors.New("an event instead of progress")
			}
			if response.Header.Revision >= put.Header.Revision {
				return nil
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func watchRequireLeader(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	watching := env.client.Watch(clientv3.WithRequireLeader(ctx), "leader", clientv3.WithCreatedNotify())
	created := <-watching
	return want("created", created.Created, true)
}

func lease(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	granted, err := env.client.Grant(ctx, 60)
	if err != nil {
		return err
	}
	if _, err := env.client.Put(ctx, "lease/a", "1", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	left, err := env.client.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	once, err := env.client.KeepAliveOnce(ctx, granted.ID)
	if err != nil {
		return err
	}
	all, err := env.client.Leases(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, one := range all.Leases {
		found = found || one.ID == granted.ID
	}
	if _, err := env.client.Revoke(ctx, granted.ID); err != nil {
		return err
	}
	gone, err := env.client.Get(ctx, "lease/a")
	if err != nil {
		return err
	}
	_, unknown := env.client.Revoke(ctx, granted.ID)
	_, dead := env.client.KeepAliveOnce(ctx, granted.ID)
	_, attach := env.client.Put(ctx, "lease/b", "1", clientv3.WithLease(granted.ID))
	return first(
		want("granted", left.GrantedTTL, 60), want("keys", fmt.Sprintf("%s", left.Keys), "[lease/a]"),
		want("renewed", once.TTL, 60), want("listed", found, true), want("count", gone.Count, 0),
		wantError("unknown", unknown, rpctypes.ErrLeaseNotFound),
		wantError("dead", dead, rpctypes.ErrLeaseNotFound),
		wantError("attach", attach, rpctypes.ErrLeaseNotFound),
	)
}

func leaseExpiry(env *environment) error {
	ctx, cancel := within(15)
	defer cancel()
	granted, err := env.client.Grant(ctx, 1)
	if err != nil {
		return err
	}
	watching := env.client.Watch(ctx, "expiry", clientv3.WithFilterPut())
	begin := time.Now()
	if _, err := env.client.Put(ctx, "expiry", "1", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	response := <-watching
	took := time.Since(begin)
	if len(response.Events) != 1 {
		return fmt.Errorf("no event: %v", response.Err())
	}
	if took < time.Duration(granted.TTL)*time.Second-100*time.Millisecond || took > time.Duration(granted.TTL+4)*time.Second {
		return fmt.Errorf("expired after %s with a TTL of %d s", took, granted.TTL)
	}
	return nil
}

func leaseMany(env *environment) error {
	ctx, cancel := within(20)
	defer cancel()
	return together(200, func(i int) error {
		granted, err := env.client.Grant(ctx, 3)
		if err != nil {
			return err
		}
		alive, err := env.client.KeepAlive(ctx, granted.ID)
		if err != nil {
			return err
		}
		for range 2 {
			response, ok := <-alive
			if !ok || response.TTL != 3 {
				return fmt.Errorf("lease %d was not renewed: %v", i, response)
			}
		}
		_, err = env.client.Revoke(ctx, granted.ID)
		return err
	})
}

func mutex(env *environment) error {
	ctx, cancel := within(60)
	defer cancel()
	var holders, entered atomic.Int32
	total := 0
	err := together(20, func(int) error {
		session, err := concurrency.NewSession(env.client, concurrency.WithTTL(10))
		if err != nil {
			return err
		}
		defer session.Close()
		lock := concurrency.NewMutex(session, "mutex")
		for range 5 {
			if err := lock.Lock(ctx); err != nil {
				return err
			}
			if holders.Add(1) != 1 {
				return errors.New("two holders")
			}
			entered.Add(1)
			total++
			holders.Add(-1)
			if err := lock.Unlock(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return first(err, want("entered", entered.Load(), 100), want("total", total, 100))
}

func election(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	observing, stop := context.WithCancel(ctx)
	defer stop()
	watcher, err := concurrency.NewSession(env.client)
	if err != nil {
		return err
	}
	defer watcher.Close()
	observed := make(map[string]bool)
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		for response := range concurrency.NewElection(watcher, "election").Observe(observing) {
			mu.Lock()
			observed[string(response.Kvs[0].Value)] = true
			mu.Unlock()
		}
	}()
	var leaders atomic.Int32
	err = together(5, func(i int) error {
		session, err := concurrency.NewSession(env.client)
		if err != nil {
			return err
		}
		defer session.Close()
		candidate := concurrency.NewElection(session, "election")
		name := fmt.Sprintf("candidate %d", i)
		if err := candidate.Campaign(ctx, name); err != nil {
			return err
		}
		if leaders.Add(1) != 1 {
			return errors.New("two leaders")
		}
		leader, err := candidate.Leader(ctx)
		if err != nil {
			return err
		}
		if err := want("leader", string(leader.Kvs[0].Value), name); err != nil {
			return err
		}
		// Stays until it was seen.
		for {
			mu.Lock()
			seen := observed[name]
			mu.Unlock()
			if seen {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s was not observed", name)
			}
			time.Sleep(5 * time.Millisecond)
		}
		leaders.Add(-1)
		return candidate.Resign(ctx)
	})
	stop()
	<-done
	mu.Lock()
	defer mu.Unlock()
	return first(err, want("observed", len(observed), 5))
}

// sequenceBySTM lets many callers draw numbers from one counter: no number may come twice, none may be left out. Callers that run at the same time lose
// against each other: each commit makes the others try again, so at most `atOnce` of them do.
func sequenceBySTM(env *environment, isolation concurrency.Isolation, name string) error {
	ctx, cancel := within(600)
	defer cancel()
	key := "sequence/" + name
	turns := make(chan struct{}, env.atOnce)
	return sequence(ctx, cancel, env, key, func() (int, error) {
		number := 0
		turns <- struct{}{}
		_, err := concurrency.NewSTM(env.client, func(stm concurrency.STM) error {
			if _, err := fmt.Sscan(stm.Get(key), &number); err != nil {
				return err
			}
			number++
			stm.Put(key, fmt.Sprint(number))
			return nil
		}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
		<-turns
		return number, err
	})
}

// sequenceByMutex does the same with reading and writing under a lock. All callers wait for it at once, each with a lease of its own.
func sequenceByMutex(env *environment) error {
	ctx, cancel := within(600)
	defer cancel()
	const key = "sequence/mutex"
	sessions := make(chan *concurrency.Session, env.callers)
	if err := together(env.callers, func(int) error {
		session, err := concurrency.NewSession(env.client, concurrency.WithTTL(60))
		if err == nil {
			sessions <- session
		}
		return err
	}); err != nil {
		return err
	}
	defer func() {
		close(sessions)
		for session := range sessions {
			session.Close()
		}
	}()
	return sequence(ctx, cancel, env, key, func() (int, error) {
		session := <-sessions
		defer func() { sessions <- session }()
		lock := concurrency.NewMutex(session, "sequence-lock")
		if err := lock.Lock(ctx); err != nil {
			return 0, err
		}
		got, err := env.client.Get(ctx, key)
		if err != nil {
			return 0, err
		}
		number := 0
		if _, err := fmt.Sscan(string(got.Kvs[0].Value), &number); err != nil {
			return 0, err
		}
		number++
		if _, err := env.client.Put(ctx, key, fmt.Sprint(number)); err != nil {
			return 0, err
		}
		return number, lock.Unlock(ctx)
	})
}

func sequence(ctx context.Context, cancel context.CancelFunc, env *environment, key string, draw func() (int, error)) error {
	if _, err := env.client.Put(ctx, key, "0"); err != nil {
		return err
	}
	drawn := make(chan int, env.callers*env.numbers)
	if err := together(env.callers, func(int) error {
		for range env.numbers {
			number, err := draw()
			if err != nil {
				// The others may wait for what this caller holds.
				cancel()
				return err
			}
			drawn <- number
		}
		return nil
	}); err != nil {
		return err
	}
	close(drawn)
	var numbers []int
	for number := range drawn {
		numbers = append(numbers, number)
	}
	sort.Ints(numbers)
	if err := want("how many", len(numbers), env.callers*env.numbers); err != nil {
		return err
	}
	for i, number := range numbers {
		if number != i+1 {
			return fmt.Errorf("the %dth number is %d", i+1, number)
		}
	}
	return nil
}

func queue(env *environment) error {
	const items = 60
	work := recipe.NewQueue(env.client, "queue")
	if err := together(6, func(i int) error {
		for n := range items / 6 {
			if err := work.Enqueue(fmt.Sprintf("%d/%d", i, n)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	taken := make(chan string, items)
	if err := together(6, func(int) error {
		for range items / 6 {
			item, err := work.Dequeue()
			if err != nil {
				return err
			}
			taken <- item
		}
		return nil
	}); err != nil {
		return err
	}
	close(taken)
	seen := map[string]bool{}
	for item := range taken {
		seen[item] = true
	}
	return want("items", len(seen), items)
}

func priorityQueue(env *environment) error {
	work := recipe.NewPriorityQueue(env.client, "priority")
	for i, item := range []string{"c", "a", "b"} {
		if err := work.Enqueue(item, []uint16{30, 10, 20}[i]); err != nil {
			return err
		}
	}
	var order []string
	for range 3 {
		item, err := work.Dequeue()
		if err != nil {
			return err
		}
		order = append(order, item)
	}
	return want("order", strings.Join(order, ""), "abc")
}

func barrier(env *environment) error {
	gate := recipe.NewBarrier(env.client, "barrier")
	if err := gate.Hold(); err != nil {
		return err
	}
	var through atomic.Int32
	finished := make(chan error, 1)
	go func() {
		finished <- together(10, func(int) error {
			defer through.Add(1)
			return recipe.NewBarrier(env.client, "barrier").Wait()
		})
	}()
	time.Sleep(200 * time.Millisecond)
	early := through.Load()
	if err := gate.Release(); err != nil {
		return err
	}
	return first(<-finished, want("early", early, 0), want("through", through.Load(), 10))
}

func doubleBarrier(env *environment) error {
	const size = 5
	var inside, most atomic.Int32
	return first(together(size, func(int) error {
		session, err := concurrency.NewSession(env.client)
		if err != nil {
			return err
		}
		defer session.Close()
		gate := recipe.NewDoubleBarrier(session, "double", size)
		if err := gate.Enter(); err != nil {
			return err
		}
		if now := inside.Add(1); now == size {
			most.Store(now)
		}
		if err := gate.Leave(); err != nil {
			return err
		}
		return nil
	}), want("together", most.Load(), size))
}

func rwMutex(env *environment) error {
	var readers, writers atomic.Int32
	return together(8, func(i int) error {
		session, err := concurrency.NewSession(env.client)
		if err != nil {
			return err
		}
		defer session.Close()
		lock := recipe.NewRWMutex(session, "rwmutex")
		if i%4 == 0 {
			if err := lock.Lock(); err != nil {
				return err
			}
			if writers.Add(1) != 1 || readers.Load() != 0 {
				return errors.New("a writer is not alone")
			}
			writers.Add(-1)
			return lock.Unlock()
		}
		if err := lock.RLock(); err != nil {
			return err
		}
		readers.Add(1)
		if writers.Load() != 0 {
			return errors.New("a reader beside a writer")
		}
		readers.Add(-1)
		return lock.RUnlock()
	})
}

func namespaced(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	inside := namespace.NewKV(env.client, "space/")
	if _, err := inside.Put(ctx, "a", "1"); err != nil {
		return err
	}
	outside, err := env.client.Get(ctx, "space/a")
	if err != nil {
		return err
	}
	got, err := inside.Get(ctx, "a")
	if err != nil {
		return err
	}
	return first(want("outside", outside.Count, 1), want("inside", string(got.Kvs[0].Key), "a"))
}

func ordered(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	kv := ordering.NewKV(env.client, func(op clientv3.Op, response clientv3.OpResponse, previous int64) error {
		return errors.New("an older answer")
	})
	for i := range 50 {
		if _, err := kv.Put(ctx, "ordering", fmt.Sprint(i)); err != nil {
			return err
		}
		if _, err := kv.Get(ctx, "ordering", clientv3.WithSerializable()); err != nil {
			return err
		}
	}
	return nil
}

func leased(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	kv, closer, err := leasing.NewKV(env.client, "leasing/")
	if err != nil {
		return err
	}
	defer closer()
	if _, err := env.client.Put(ctx, "leased-key", "1"); err != nil {
		return err
	}
	for range 3 {
		got, err := kv.Get(ctx, "leased-key")
		if err != nil {
			return err
		}
		if err := want("cached", string(got.Kvs[0].Value), "1"); err != nil {
			return err
		}
	}
	other, stop, err := leasing.NewKV(env.client, "leasing/")
	if err != nil {
		return err
	}
	defer stop()
	if _, err := other.Put(ctx, "leased-key", "2"); err != nil {
		return err
	}
	got, err := kv.Get(ctx, "leased-key")
	if err != nil {
		return err
	}
	return want("after the other's put", string(got.Kvs[0].Value), "2")
}

func mirrored(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	for i := range 30 {
		if _, err := env.client.Put(ctx, fmt.Sprintf("mirror/%d", i), "x"); err != nil {
			return err
		}
	}
	syncer := mirror.NewSyncer(env.client, "mirror/", 0)
	responses, failures := syncer.SyncBase(ctx)
	copied := 0
	for response := range responses {
		copied += len(response.Kvs)
	}
	if err := <-failures; err != nil {
		return err
	}
	updates := syncer.SyncUpdates(ctx)
	if _, err := env.client.Put(ctx, "mirror/new", "y"); err != nil {
		return err
	}
	update := <-updates
	return first(want("copied", copied, 30), want("update", string(update.Events[0].Kv.Key), "mirror/new"))
}

func cluster(env *environment) error {
	ctx, cancel := within(10)
	defer cancel()
	members, err := env.client.MemberList(ctx)
	if err != nil {
		return err
	}
	local, err := env.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if err := env.client.Sync(ctx); err != nil {
		return err
	}
	_, unknown := env.client.MemberRemove(ctx, 12345)
	return first(
		want("members", len(members.Members) > 0, true), want("the same", len(local.Members), len(members.Members)),
		want("endpoints", len(env.client.Endpoints()) > 0, true),
		wantError("unknown", unknown, rpctypes.ErrMemberNotFound),
	)
}

func maintenance(env *environment) error {
	ctx, cancel := within(20)
	defer cancel()
	endpoint := env.endpoints[0]
	state, err := env.client.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	hash, err := env.client.HashKV(ctx, endpoint, 0)
	if err != nil {
		return err
	}
	again, err := env.client.HashKV(ctx, endpoint, hash.HashRevision)
	if err != nil {
		return err
	}
	alarms, err := env.client.AlarmList(ctx)
	if err != nil {
		return err
	}
	if _, err := env.client.Defragment(ctx, endpoint); err != nil {
		return err
	}
	_, transferee := env.client.MoveLeader(ctx, 12345)
	return first(
		want("version", state.Version, "3.7.1"), want("leader", state.Leader != 0, true), want("size", state.DbSize > 0, true),
		want("hash", again.Hash, hash.Hash), want("alarms", len(alarms.Alarms), 0),
		wantError("transferee", transferee, rpctypes.ErrBadLeaderTransferee),
	)
}

func snapshot(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	stream, err := env.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	all, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if len(all)%512 != sha256.Size {
		return fmt.Errorf("%d bytes are no database and a digest", len(all))
	}
	digest := sha256.Sum256(all[:len(all)-sha256.Size])
	return want("digest", bytes.Equal(digest[:], all[len(all)-sha256.Size:]), true)
}

func rangeStream(env *environment) error {
	ctx, cancel := within(30)
	defer cancel()
	value := strings.Repeat("s", 10_000)
	for i := range 300 {
		if _, err := env.client.Put(ctx, fmt.Sprintf("stream/%03d", i), value); err != nil {
			return err
		}
	}
	defer env.client.Delete(context.Background(), "stream/", clientv3.WithPrefix())
	stream, err := openRangeStream(ctx, env.client, "stream/")
	if err != nil {
		return err
	}
	pairs, chunks := 0, 0
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if status.Code(err) != codes.OK {
			return err
		}
		chunks++
		for _, kv := range response.RangeResponse.Kvs {
			if err := want("key", string(kv.Key), fmt.Sprintf("stream/%03d", pairs)); err != nil {
				return err
			}
			pairs++
		}
	}
	return first(want("pairs", pairs, 300), want("several chunks", chunks > 1, true))
}
