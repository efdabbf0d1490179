package main

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func bench(endpoints []string, op string, clients, conns int, length time.Duration, size int) {
	if conns > clients {
		conns = clients
	}
	all := make([]*clientv3.Client, conns)
	for i := range all {
		all[i] = dial(endpoints)
		defer all[i].Close()
	}
	value := string(make([]byte, size))
	if _, err := all[0].Put(context.Background(), "bench/range", value); err != nil {
		fmt.Println(err)
		return
	}
	call := func(client *clientv3.Client, i, n int) error {
		ctx := context.Background()
		key := fmt.Sprintf("bench/%d/%d", i, n%100)
		var err error
		switch op {
		case "range":
			_, err = client.Get(ctx, "bench/range")
		case "txn":
			_, err = client.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), ">", -1)).Then(clientv3.OpPut(key, value)).Commit()
		default:
			_, err = client.Put(ctx, key, value)
		}
		return err
	}
	var measuring, stopped atomic.Bool
	var failed atomic.Int64
	latencies := make([][]time.Duration, clients)
	var callers sync.WaitGroup
	for i := range clients {
		callers.Add(1)
		go func() {
			defer callers.Done()
			client := all[i%conns]
			for n := 0; !stopped.Load(); n++ {
				begin := time.Now()
				if err := call(client, i, n); err != nil {
					failed.Add(1)
				} else if measuring.Load() {
					latencies[i] = append(latencies[i], time.Since(begin))
				}
			}
		}()
	}
	time.Sleep(time.Second)
	measuring.Store(true)
	begin := time.Now()
	time.Sleep(length)
	measuring.Store(false)
	took := time.Since(begin)
	stopped.Store(true)
	callers.Wait()
	var sorted []time.Duration
	for _, some := range latencies {
		sorted = append(sorted, some...)
	}
	sort.Slice(sorted, func(a, b int) bool { return sorted[a] < sorted[b] })
	at := func(share float64) time.Duration {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[int(float64(len(sorted)-1)*share)].Round(time.Microsecond)
	}
	fmt.Printf("%s clients %d conns %d: %.0f/s p50 %s p99 %s failed %d\n", op, clients, conns, float64(len(sorted))/took.Seconds(), at(0.5), at(0.99), failed.Load())
}
