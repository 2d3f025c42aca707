package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// eventIDHeader names the event; its value is the record's key. A request without it goes by the
// digest of its body.
const eventIDHeader = "X-Event-Id"

var accepted = []byte("{\"status\":\"accepted\"}\n")

type gateway struct {
	client     *kgo.Client
	topic      string
	secret     []byte
	header     string
	ackTimeout time.Duration
	maxBody    int64
}

func (g *gateway) receive(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, g.maxBody)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		} else {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
		}
		return
	}
	if !verified(g.secret, body, r.Header.Get(g.header)) {
		http.Error(w, "the signature is missing or wrong", http.StatusUnauthorized)
		return
	}
	if err := g.store(eventKey(r, body), body); err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not stored, please send it again", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(accepted)
}

// readBody reads into one allocation where the length is announced, which it is for webhooks.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	reader := http.MaxBytesReader(w, r.Body, limit)
	if r.ContentLength < 0 || r.ContentLength > limit {
		return io.ReadAll(reader)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(reader, body)
	return body, err
}

// verified tells whether signature is the hexadecimal HMAC-SHA256 of the body, in constant time.
func verified(secret, body []byte, signature string) bool {
	var told [sha256.Size]byte
	if hex.DecodedLen(len(signature)) != len(told) {
		return false
	}
	if _, err := hex.Decode(told[:], []byte(signature)); err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), told[:])
}

func eventKey(r *http.Request, body []byte) []byte {
	source := r.PathValue("source")
	if id := r.Header.Get(eventIDHeader); id != "" {
		return []byte(source + ":" + id)
	}
	digest := sha256.Sum256(body)
	return []byte(source + ":" + hex.EncodeToString(digest[:]))
}

// store returns nil after Kafka acknowledged the record. A full buffer is an error at once, and a
// sender that hangs up does not take its record out of the queue: it may be on its way already.
func (g *gateway) store(key, body []byte) error {
	done := make(chan error, 1)
	record := &kgo.Record{Key: key, Value: body}
	g.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) { done <- err })
	// franz-go lets a record that is in flight live beyond its delivery time-out.
	timeout := time.NewTimer(g.ackTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return context.DeadlineExceeded
	}
}

// known returns an error unless the brokers answer and have the topic.
func known(ctx context.Context, client *kgo.Client, topic string) error {
	request := kmsg.NewPtrMetadataRequest()
	wanted := kmsg.NewMetadataRequestTopic()
	wanted.Topic = kmsg.StringPtr(topic)
	request.Topics = append(request.Topics, wanted)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("no answer from Kafka: %w", err)
	}
	for _, t := range response.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	return nil
}
