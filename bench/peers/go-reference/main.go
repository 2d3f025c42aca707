// Program go-reference is a webhook gateway as a careful Go programmer would write it in an
// afternoon: net/http and franz-go. It makes the same promise as the gateway it is compared with:
// a request is verified over its raw body and answered 2xx only after Kafka acknowledged the record
// with acks=all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	startLimit    = 30 * time.Second
	shutdownLimit = 10 * time.Second
)

type options struct {
	bootstrap   string
	topic       string
	listen      string
	secretEnv   string
	header      string
	linger      time.Duration
	compression string
	ackTimeout  time.Duration
	maxBody     int64
}

func parse() (options, error) {
	var o options
	flag.StringVar(&o.bootstrap, "bootstrap", "", "Kafka brokers, `HOST:PORT[,…]`")
	flag.StringVar(&o.topic, "topic", "", "the `topic` that events are written to")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "the `address` to serve HTTP on")
	flag.StringVar(&o.secretEnv, "secret-env", "WEBHOOK_SECRET", "the environment `variable` with the HMAC key")
	flag.StringVar(&o.header, "signature-header", "X-Signature", "the `header` with the signature, in hexadecimal")
	flag.DurationVar(&o.linger, "linger", 0, "how long a batch waits for more records")
	flag.StringVar(&o.compression, "compression", "lz4", "none, lz4 or snappy")
	flag.DurationVar(&o.ackTimeout, "ack-timeout", 4*time.Second, "longest wait for Kafka's acknowledgement")
	flag.Int64Var(&o.maxBody, "max-body", 1<<20, "largest body, in `bytes`")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.bootstrap == "" || o.topic == "" {
		return o, errors.New("--bootstrap and --topic are needed")
	}
	return o, nil
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-reference:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	secret := os.Getenv(o.secretEnv)
	if secret == "" {
		return fmt.Errorf("the HMAC key is missing: set the environment variable %s", o.secretEnv)
	}
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()

	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	g := &gateway{
		client:     client,
		topic:      o.topic,
		secret:     []byte(secret),
		header:     http.CanonicalHeaderKey(o.header),
		ackTimeout: o.ackTimeout,
		maxBody:    o.maxBody,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /webhooks/{source}", g.receive)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Println("ready")
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	// What is in flight is answered before the client goes.
	ctx, done := context.WithTimeout(context.Background(), shutdownLimit)
	defer done()
	return server.Shutdown(ctx)
}

// connect makes the producer and asks the brokers for the topic, so that "ready" means ready.
// Idempotence and acks=all are franz-go's defaults and said here all the same.
func connect(o options) (*kgo.Client, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "snappy": kgo.SnappyCompression(),
	}
	codec, ok := codecs[o.compression]
	if !ok {
		return nil, fmt.Errorf("unknown compression %q", o.compression)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(o.bootstrap, ",")...),
		kgo.ClientID("go-reference"),
		kgo.DefaultProduceTopic(o.topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(o.linger),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordDeliveryTimeout(o.ackTimeout),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := known(ctx, client, o.topic); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}
