// A Go program that shares locks, elections and queues with a Node program: `contend` takes part until its standard input ends, `sequence` measures how long
// many callers take to draw numbers under a lock.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.uber.org/zap"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: go-node contend|sequence -endpoints host:port[,...]"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	endpoints := flags.String("endpoints", "127.0.0.1:2379", "comma-separated")
	rounds := flags.Int("rounds", 20, "contend: rounds of each kind")
	callers := flags.Int("callers", 500, "sequence: concurrent callers, each with a session of its own")
	numbers := flags.Int("numbers", 10, "sequence: numbers that each caller draws")
	_ = flags.Parse(os.Args[2:])
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	fail(err)
	defer client.Close()
	switch os.Args[1] {
	case "contend":
		contend(client, *rounds)
	case "sequence":
		sequence(client, *callers, *numbers)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

// contend prints what it has, in words that the Node side checks: "mutex <token>", "election <token>", "queue <item>".
func contend(client *clientv3.Client, rounds int) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var parts sync.WaitGroup
	for _, part := range []func(context.Context, *clientv3.Client, int) error{mutex, election} {
		parts.Add(1)
		go func() {
			defer parts.Done()
			fail(part(ctx, client, rounds))
		}()
	}
	// Half of the items come from here, and a worker of here takes items until the Node side closes the input.
	go func() { fail(consume(client)) }()
	for i := range rounds {
		fail(recipe.NewQueue(client, "shared/queue").Enqueue(fmt.Sprintf("go-%d", i)))
	}
	parts.Wait()
	fmt.Println("DONE")
	_, _ = io.Copy(io.Discard, os.Stdin)
	// Not by closing the client: a waiting Dequeue of the recipe does not survive that.
	os.Exit(0)
}

func mutex(ctx context.Context, client *clientv3.Client, rounds int) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		return err
	}
	defer session.Close()
	for range rounds {
		lock := concurrency.NewMutex(session, "shared/mutex")
		if err := lock.Lock(ctx); err != nil {
			return err
		}
		token, err := tokenOf(ctx, client, lock.Key())
		if err != nil {
			return err
		}
		if err := alone(ctx, client, "shared/in-mutex", "mutex", token); err != nil {
			return err
		}
		if err := lock.Unlock(ctx); err != nil {
			return err
		}
	}
	return nil
}

func election(ctx context.Context, client *clientv3.Client, rounds int) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		return err
	}
	defer session.Close()
	for i := range rounds {
		election := concurrency.NewElection(session, "shared/election")
		if err := election.Campaign(ctx, "go"); err != nil {
			return err
		}
		if err := election.Proclaim(ctx, fmt.Sprintf("go %d", i)); err != nil {
			return err
		}
		leader, err := election.Leader(ctx)
		if err != nil {
			return err
		}
		if value := string(leader.Kvs[0].Value); value != fmt.Sprintf("go %d", i) {
			return fmt.Errorf("%q leads during the reign of round %d", value, i)
		}
		if err := alone(ctx, client, "shared/in-election", "election", election.Rev()); err != nil {
			return err
		}
		if err := election.Resign(ctx); err != nil {
			return err
		}
	}
	return nil
}

func tokenOf(ctx context.Context, client *clientv3.Client, key string) (int64, error) {
	got, err := client.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if len(got.Kvs) == 0 {
		return 0, fmt.Errorf("the lock's key %s is not there", key)
	}
	return got.Kvs[0].CreateRevision, nil
}

// alone holds a mark for a moment that nobody else may hold meanwhile.
func alone(ctx context.Context, client *clientv3.Client, mark, what string, token int64) error {
	entered, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(mark), "=", 0)).Then(clientv3.OpPut(mark, "go")).Commit()
	if err != nil {
		return err
	}
	if !entered.Succeeded {
		return fmt.Errorf("%s: somebody is inside already", what)
	}
	time.Sleep(2 * time.Millisecond)
	fmt.Println(what, token)
	left, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Value(mark), "=", "go")).Then(clientv3.OpDelete(mark)).Commit()
	if err != nil {
		return err
	}
	if !left.Succeeded {
		return fmt.Errorf("%s: somebody came in meanwhile", what)
	}
	return nil
}

func consume(client *clientv3.Client) error {
	for {
		item, err := recipe.NewQueue(client, "shared/queue").Dequeue()
		if err != nil {
			return err
		}
		fmt.Println("queue", item)
	}
}

func sequence(client *clientv3.Client, callers, numbers int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	const key = "sequence/number"
	_, err := client.Put(ctx, key, "0")
	fail(err)
	sessions := make([]*concurrency.Session, callers)
	for i := range sessions {
		sessions[i], err = concurrency.NewSession(client, concurrency.WithTTL(60))
		fail(err)
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, session := range sessions {
		all.Add(1)
		go func() {
			defer all.Done()
			for range numbers {
				lock := concurrency.NewMutex(session, "sequence/lock")
				fail(lock.Lock(ctx))
				got, err := client.Get(ctx, key)
				fail(err)
				number, err := strconv.Atoi(string(got.Kvs[0].Value))
				fail(err)
				_, err = client.Put(ctx, key, strconv.Itoa(number+1))
				fail(err)
				fail(lock.Unlock(ctx))
			}
		}()
	}
	all.Wait()
	took := time.Since(begin)
	got, err := client.Get(ctx, key)
	fail(err)
	fmt.Printf("sequence %s in %d ms\n", got.Kvs[0].Value, took.Milliseconds())
	for _, session := range sessions {
		session.Close()
	}
}
