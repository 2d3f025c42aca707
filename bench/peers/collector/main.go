// Program collector is an OpenTelemetry Collector with the parts that the benchmark needs and no
// others: the OTLP receiver and the Kafka exporter. It is what the collector builder would write,
// plus a line "ready" on standard output once the pipeline runs.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/kafkaexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

// version of the collector's modules in go.mod.
const version = "0.155.0"

// statePoll is how often the collector is asked whether it runs yet; it offers no event.
const statePoll = 20 * time.Millisecond

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: collector CONFIG.yaml…, the later on top of the earlier")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

func run(configs []string) error {
	uris := make([]string, len(configs))
	for i, file := range configs {
		uris[i] = "file:" + file
	}
	collector, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{
			Command:     "collector",
			Description: "OpenTelemetry Collector: OTLP receiver, Kafka exporter",
			Version:     version,
		},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				URIs: uris,
				ProviderFactories: []confmap.ProviderFactory{
					fileprovider.NewFactory(),
					envprovider.NewFactory(),
				},
				DefaultScheme: "env",
			},
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go announce(ctx, collector)
	return collector.Run(ctx) // Until SIGTERM or SIGINT, which it handles itself.
}

// announce prints "ready" when the receiver listens and the exporter has started.
func announce(ctx context.Context, collector *otelcol.Collector) {
	tick := time.NewTicker(statePoll)
	defer tick.Stop()
	for collector.GetState() == otelcol.StateStarting {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	if collector.GetState() == otelcol.StateRunning {
		fmt.Println("ready")
	}
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](kafkaexporter.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	return otelcol.Factories{
		Receivers: receivers,
		Exporters: exporters,
		Telemetry: otelconftelemetry.NewFactory(),
	}, nil
}
