// SPDX-License-Identifier: Apache-2.0

// etcdload keeps a cluster of etcd busy over mutual TLS, and prints one JSON document about it. btbench runs it; it is in
// Go, as this is the language of etcd's own client. scripts/install-etcd compiles it, with Debian's packages of that client.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/ioutil"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"google.golang.org/grpc/grpclog"
)

const (
	valueByteCount = 4096
	keyCount       = 1000
	warmUpCount    = 20
)

// What one run gave. The latencies are counted by classes of 1 %: class i holds those up to 1.01^i microseconds.
type result struct {
	Operations       int     `json:"operations"`
	Failures         int     `json:"failures"`
	Seconds          float64 `json:"seconds"`
	ProcessorSeconds float64 `json:"processorSeconds"`
	Latencies        []int   `json:"latencies"`
	GapMilliseconds  float64 `json:"gapMilliseconds"`
}

type load struct {
	clients  []*clientv3.Client
	inFlight int
	duration time.Duration
	// When to begin, for several processes that do so together.
	at    time.Time
	value string
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port of each member, with commas between")
	operation := flag.String("operation", "put", "fill, put, get, gap or leader")
	inFlight := flag.Int("in-flight", 1, "operations at the same time")
	connections := flag.Int("connections", 1, "connections that they are spread over")
	milliseconds := flag.Int("milliseconds", 2000, "how long")
	at := flag.Int64("at", 0, "milliseconds since 1970 before which nothing is measured")
	patience := flag.Int("patience", 50, "milliseconds that an operation may take with gap")
	authority := flag.String("ca", "", "the certificate that members are trusted by")
	certificate := flag.String("certificate", "", "of this client")
	key := flag.String("key", "", "of this client")
	flag.Parse()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(ioutil.Discard, ioutil.Discard, ioutil.Discard))

	security, err := security(*authority, *certificate, *key)
	check(err)
	members := []string{}
	for _, address := range strings.Split(*endpoints, ",") {
		members = append(members, "https://"+address)
	}
	work := load{inFlight: *inFlight, duration: time.Duration(*milliseconds) * time.Millisecond, value: noise()}
	work.at = time.UnixMilli(*at)
	for i := 0; i < *connections; i++ {
		client, err := clientv3.New(clientv3.Config{Endpoints: members, TLS: security, DialTimeout: 5 * time.Second})
		check(err)
		work.clients = append(work.clients, client)
	}
	switch *operation {
	case "leader":
		print(map[string]int{"leader": leader(work.clients[0], members)})
	case "fill":
		check(work.fill())
		print(result{Operations: keyCount, Latencies: []int{}})
	case "put":
		print(work.run(work.put))
	case "get":
		print(work.run(work.get))
	case "gap":
		print(work.gap(time.Duration(*patience) * time.Millisecond))
	default:
		check(fmt.Errorf("there is no operation %q", *operation))
	}
}

func (l *load) put(ctx context.Context, client *clientv3.Client, number int) error {
	_, err := client.Put(ctx, keyName(number), l.value)
	return err
}

// A linearizable read, which is etcd's default.
func (l *load) get(ctx context.Context, client *clientv3.Client, number int) error {
	response, err := client.Get(ctx, keyName(number))
	if err == nil && (len(response.Kvs) != 1 || len(response.Kvs[0].Value) != valueByteCount) {
		return errors.New("that is not what was put")
	}
	return err
}

func (l *load) fill() error {
	failures := make(chan error, 32)
	for worker := 0; worker < cap(failures); worker++ {
		go func(worker int) {
			var err error
			for number := worker; number < keyCount && err == nil; number += cap(failures) {
				err = l.put(context.Background(), l.clients[0], number)
			}
			failures <- err
		}(worker)
	}
	for worker := 0; worker < cap(failures); worker++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// A closed loop: each of those in flight begins the next operation when its last one has been answered.
func (l *load) run(do func(context.Context, *clientv3.Client, int) error) result {
	for _, client := range l.clients {
		for number := 0; number < warmUpCount; number++ {
			check(do(context.Background(), client, number))
		}
	}
	time.Sleep(time.Until(l.at))
	var lock sync.Mutex
	all := result{Latencies: []int{}}
	var workers sync.WaitGroup
	processor := processorSeconds()
	start := time.Now()
	end := start.Add(l.duration)
	for worker := 0; worker < l.inFlight; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			var own result
			client := l.clients[worker%len(l.clients)]
			for number := worker; ; number += l.inFlight {
				begun := time.Now()
				if begun.After(end) {
					break
				}
				if err := do(context.Background(), client, number); err != nil {
					own.Failures++
				} else {
					own.count(time.Since(begun))
				}
			}
			lock.Lock()
			defer lock.Unlock()
			all.add(own)
		}(worker)
	}
	workers.Wait()
	all.Seconds = time.Since(start).Seconds()
	all.ProcessorSeconds = processorSeconds() - processor
	return all
}

// One writer, and the longest time between two puts that succeeded, or from the last one to the end.
func (l *load) gap(patience time.Duration) result {
	all := result{Latencies: []int{}}
	var last time.Time
	start := time.Now()
	for number := 0; time.Since(start) < l.duration; number++ {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := l.put(ctx, l.clients[0], number)
		cancel()
		if err != nil {
			all.Failures++
			time.Sleep(time.Millisecond)
			continue
		}
		now := time.Now()
		all.count(now.Sub(begun))
		if !last.IsZero() {
			all.GapMilliseconds = math.Max(all.GapMilliseconds, float64(now.Sub(last))/1e6)
		}
		last = now
	}
	all.GapMilliseconds = math.Max(all.GapMilliseconds, float64(time.Since(last))/1e6)
	all.Seconds = time.Since(start).Seconds()
	return all
}

// The index of the member that leads; -1 when they do not agree, or not all of them answer.
func leader(client *clientv3.Client, members []string) int {
	found := -1
	var id uint64
	for index, member := range members {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		status, err := client.Status(ctx, member)
		cancel()
		if err != nil || status.Leader == 0 || (id != 0 && status.Leader != id) {
			return -1
		}
		id = status.Leader
		if status.Header.MemberId == id {
			found = index
		}
	}
	return found
}

func (r *result) count(latency time.Duration) {
	class := int(math.Ceil(math.Log(math.Max(float64(latency)/1e3, 1)) / math.Log(1.01)))
	for len(r.Latencies) <= class {
		r.Latencies = append(r.Latencies, 0)
	}
	r.Latencies[class]++
	r.Operations++
}

func (r *result) add(other result) {
	r.Operations += other.Operations
	r.Failures += other.Failures
	for len(r.Latencies) < len(other.Latencies) {
		r.Latencies = append(r.Latencies, 0)
	}
	for class, count := range other.Latencies {
		r.Latencies[class] += count
	}
}

func security(authority, certificate, key string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	text, err := ioutil.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", authority)
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

func keyName(number int) string { return fmt.Sprintf("key-%07d", number%keyCount) }

func noise() string {
	bytes := make([]byte, valueByteCount)
	_, err := rand.Read(bytes)
	check(err)
	return string(bytes)
}

// What this process has used so far.
func processorSeconds() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func print(value interface{}) { check(json.NewEncoder(os.Stdout).Encode(value)) }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
