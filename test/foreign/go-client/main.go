// A client of etcd's own making, from Go, against whatever serves etcd's API: `check` tries what programs use and says PASS or FAIL for
// each, `bench` measures calls per second, `failover` works on while members end and checks what it has seen.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	endpoints := flags.String("endpoints", "127.0.0.1:2379", "comma-separated")
	switch os.Args[1] {
	case "check":
		only := flags.String("only", "", "run the checks whose name contains this")
		short := flags.Bool("short", false, "leave out what takes seconds")
		callers := flags.Int("callers", 500, "concurrent callers of the sequences")
		numbers := flags.Int("numbers", 10, "numbers that each caller draws")
		atOnce := flags.Int("at-once", 8, "callers of a sequence that run a transaction at the same time")
		_ = flags.Parse(os.Args[2:])
		os.Exit(check(strings.Split(*endpoints, ","), *only, *callers, *numbers, *atOnce, *short))
	case "bench":
		clients := flags.Int("clients", 100, "concurrent callers")
		conns := flags.Int("conns", 10, "connections")
		seconds := flags.Int("seconds", 5, "how long")
		op := flags.String("op", "put", "put, range or txn")
		size := flags.Int("size", 256, "bytes of a value")
		_ = flags.Parse(os.Args[2:])
		bench(strings.Split(*endpoints, ","), *op, *clients, *conns, time.Duration(*seconds)*time.Second, *size)
	case "failover":
		writers := flags.Int("writers", 8, "concurrent writers")
		_ = flags.Parse(os.Args[2:])
		os.Exit(failover(strings.Split(*endpoints, ","), *writers))
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go-client check|bench|failover -endpoints host:port[,...]")
	os.Exit(2)
}

func dial(endpoints []string) *clientv3.Client {
	return dialWith(endpoints, clientv3.Config{})
}

func dialWith(endpoints []string, config clientv3.Config) *clientv3.Client {
	config.Endpoints = endpoints
	config.DialTimeout = 5 * time.Second
	config.Logger = zap.NewNop()
	client, err := clientv3.New(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return client
}

func within(seconds int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
}
