package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	failoverPrefix  = "failover/"
	failoverCounter = failoverPrefix + "counter"
	failoverEnd     = failoverPrefix + "end"
	// Answered writes before the harness is told to begin.
	failoverWarmUp = 200
	failoverCall   = 5 * time.Second
)

// One event as a watcher saw it.
type seenEvent struct {
	revision int64
	key      string
	value    string
	deleted  bool
}

type failoverRun struct {
	endpoints []string
	answered  sync.Map // revision to key=value of every answered write
	writes    atomic.Int64
	unknown   atomic.Int64
	longest   atomic.Int64 // the longest time in which no write was answered, in nanoseconds
	last      atomic.Int64 // when the last write was answered
	newest    atomic.Int64 // highest revision of an answered write
	counted   atomic.Int64
	uncertain atomic.Int64
	stale     atomic.Int64
	reads     atomic.Int64
}

// failover writes, reads, counts and watches while somebody else ends members, until its input closes. Then it checks that every answered write is
// there, and that the watches have seen all of history exactly once and in order.
func failover(endpoints []string, writers int) int {
	run := &failoverRun{endpoints: endpoints}
	client := dialAll(endpoints)
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begin, err := client.Put(ctx, failoverCounter, "0")
	if err != nil {
		fmt.Println("FAIL start:", err)
		return 1
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(15))
	if err != nil {
		fmt.Println("FAIL session:", err)
		return 1
	}
	if _, err := client.Put(ctx, failoverPrefix+"session", "alive", clientv3.WithLease(session.Lease())); err != nil {
		fmt.Println("FAIL session's key:", err)
		return 1
	}
	first := begin.Header.Revision
	watchers := make([]*watcherLog, 3)
	for i := range watchers {
		own := dialAll(endpoints)
		defer own.Close()
		watchers[i] = newWatcherLog(ctx, own, first, i == 0)
	}
	run.last.Store(time.Now().UnixNano())
	working, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for i := range writers {
		workers.Go(func() { run.write(working, client, i) })
	}
	workers.Go(func() { run.count(working, client) })
	workers.Go(func() { run.read(working, client) })
	for run.writes.Load() < failoverWarmUp {
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("RUNNING")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		fmt.Printf("answered %d\n", run.writes.Load())
	}
	stop()
	workers.Wait()
	return run.verify(ctx, client, session, first, watchers)
}

func dialAll(endpoints []string) *clientv3.Client {
	return dialWith(endpoints, clientv3.Config{DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
}

func (run *failoverRun) write(ctx context.Context, client *clientv3.Client, writer int) {
	key := fmt.Sprintf("%swriter/%d", failoverPrefix, writer)
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprint(n)
		call, cancel := context.WithTimeout(context.Background(), failoverCall)
		put, err := client.Put(call, key, value)
		cancel()
		if err != nil {
			run.unknown.Add(1)
			time.Sleep(20 * time.Millisecond)
			continue
		}
		now := time.Now().UnixNano()
		raise(&run.longest, now-run.last.Swap(now))
		run.answered.Store(put.Header.Revision, key+"="+value)
		raise(&run.newest, put.Header.Revision)
		run.writes.Add(1)
		time.Sleep(time.Millisecond)
	}
}

func (run *failoverRun) count(ctx context.Context, client *clientv3.Client) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(context.Background(), failoverCall)
		_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
			number := 0
			if _, err := fmt.Sscan(stm.Get(failoverCounter), &number); err != nil {
				return err
			}
			stm.Put(failoverCounter, fmt.Sprint(number+1))
			return nil
		}, concurrency.WithAbortContext(call))
		cancel()
		if err == nil {
			run.counted.Add(1)
		} else {
			run.uncertain.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// read asks again and again: an answer must never be older than a write that was answered before the question.
func (run *failoverRun) read(ctx context.Context, client *clientv3.Client) {
	for ctx.Err() == nil {
		newest := run.newest.Load()
		call, cancel := context.WithTimeout(context.Background(), failoverCall)
		got, err := client.Get(call, failoverCounter)
		cancel()
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		run.reads.Add(1)
		if got.Header.Revision < newest {
			run.stale.Add(1)
		}
	}
}

func (run *failoverRun) verify(ctx context.Context, client *clientv3.Client, session *concurrency.Session, first int64, watchers []*watcherLog) int {
	passed, failed := 0, 0
	say := func(name string, err error, note string) {
		if err != nil {
			failed++
			fmt.Printf("FAIL failover-%s: %v\n", name, err)
			return
		}
		passed++
		fmt.Printf("PASS failover-%s%s\n", name, note)
	}
	ending, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	end, err := client.Put(ending, failoverEnd, "x")
	for err != nil && ending.Err() == nil {
		end, err = client.Put(ending, failoverEnd, "x")
	}
	if err != nil {
		say("end", err, "")
		return 1
	}
	say("writes-go-on", nil, fmt.Sprintf(" (%d answered, %d unknown, longest pause %s)",
		run.writes.Load(), run.unknown.Load(), time.Duration(run.longest.Load()).Round(time.Millisecond)))
	history := newWatcherLog(ctx, client, first, false)
	whole, err := history.until(ending, end.Header.Revision)
	if err != nil {
		say("history", err, "")
		return 1
	}
	say("history-has-answered-writes", run.missing(whole), "")
	say("revisions-without-gap", contiguous(whole, first), fmt.Sprintf(" (%d events)", len(whole)))
	say("no-write-twice", twice(whole), "")
	for i, watcher := range watchers {
		seen, err := watcher.until(ending, end.Header.Revision)
		if err == nil {
			err = sameEvents(seen, whole)
		}
		say(fmt.Sprintf("watch-%d-saw-all-once-in-order", i), err, "")
	}
	say("reads-never-old", want("old reads", run.stale.Load(), 0), fmt.Sprintf(" (%d reads)", run.reads.Load()))
	say("counter", run.checkCounter(ending, client), fmt.Sprintf(" (%d counted, %d unknown)", run.counted.Load(), run.uncertain.Load()))
	alive, err := client.Get(ending, failoverPrefix+"session")
	if err == nil {
		err = want("session's key", alive.Count, 1)
	}
	select {
	case <-session.Done():
		err = fmt.Errorf("the session has ended")
	default:
	}
	say("lease-kept-alive", err, "")
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1
	}
	return 0
}

func (run *failoverRun) missing(whole []seenEvent) error {
	found := make(map[int64]string, len(whole))
	for _, event := range whole {
		found[event.revision] = event.key + "=" + event.value
	}
	var err error
	run.answered.Range(func(revision, written any) bool {
		if found[revision.(int64)] != written.(string) {
			err = fmt.Errorf("answered %s at revision %d, history has %q", written, revision, found[revision.(int64)])
		}
		return err == nil
	})
	return err
}

func (run *failoverRun) checkCounter(ctx context.Context, client *clientv3.Client) error {
	got, err := client.Get(ctx, failoverCounter)
	if err != nil {
		return err
	}
	var number int64
	if _, err := fmt.Sscan(string(got.Kvs[0].Value), &number); err != nil {
		return err
	}
	if number < run.counted.Load() || number > run.counted.Load()+run.uncertain.Load() {
		return fmt.Errorf("the counter is %d after %d increments and %d unknown ones", number, run.counted.Load(), run.uncertain.Load())
	}
	return nil
}

// Nobody else writes here, so that each revision is one event.
func contiguous(events []seenEvent, first int64) error {
	for i, event := range events {
		if event.revision != first+int64(i) {
			return fmt.Errorf("event %d has revision %d, wanted %d", i, event.revision, first+int64(i))
		}
	}
	return nil
}

// A writer gives each value once, and the client must not send again what may have been done.
func twice(events []seenEvent) error {
	seen := make(map[string]int64, len(events))
	for _, event := range events {
		if event.key == failoverCounter || event.deleted {
			continue
		}
		written := event.key + "=" + event.value
		if at, there := seen[written]; there && event.key != failoverEnd {
			return fmt.Errorf("%s at revision %d and at %d", written, at, event.revision)
		}
		seen[written] = event.revision
	}
	return nil
}

func sameEvents(got, wanted []seenEvent) error {
	for i := range max(len(got), len(wanted)) {
		if i >= len(got) || i >= len(wanted) || got[i] != wanted[i] {
			return fmt.Errorf("event %d of %d differs from history's %d", i, len(got), len(wanted))
		}
	}
	return nil
}

func raise(to *atomic.Int64, value int64) {
	for {
		old := to.Load()
		if value <= old || to.CompareAndSwap(old, value) {
			return
		}
	}
}

// A watch of everything below the prefix, kept in order of arrival.
type watcherLog struct {
	mu     sync.Mutex
	events []seenEvent
	err    error
}

func newWatcherLog(ctx context.Context, client *clientv3.Client, first int64, requireLeader bool) *watcherLog {
	log := &watcherLog{}
	if requireLeader {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	channel := client.Watch(ctx, failoverPrefix, clientv3.WithPrefix(), clientv3.WithRev(first))
	go func() {
		for response := range channel {
			log.mu.Lock()
			if err := response.Err(); err != nil {
				log.err = err
			}
			for _, event := range response.Events {
				log.events = append(log.events, seenEvent{event.Kv.ModRevision, string(event.Kv.Key), string(event.Kv.Value), event.Type == clientv3.EventTypeDelete})
			}
			log.mu.Unlock()
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.err == nil && ctx.Err() == nil {
			log.err = fmt.Errorf("the watch has ended")
		}
	}()
	return log
}

// until waits for the event of a revision and gives all events up to it.
func (log *watcherLog) until(ctx context.Context, revision int64) ([]seenEvent, error) {
	for {
		log.mu.Lock()
		events, err := log.events, log.err
		log.mu.Unlock()
		if len(events) > 0 && events[len(events)-1].revision >= revision {
			for len(events) > 0 && events[len(events)-1].revision > revision {
				events = events[:len(events)-1]
			}
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("revision %d was not seen: %d events so far", revision, len(events))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
