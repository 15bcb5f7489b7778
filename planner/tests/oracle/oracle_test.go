// Package oracle runs the unmodified HPA controller of Kubernetes in virtual time.
//
// It reads scenarios, as `sluice hpa` does, from the file that ORACLE_IN names, and writes what the controller did into
// ORACLE_OUT, in the same order. It is a test only because testing/synctest has the fake clock.
package oracle

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
)

const (
	namespace = "default"
	name      = "scaled"
)

// What the controller did: the replicas it wanted after each sync, or why the API would not take the spec.
type outcome struct {
	Desired [][2]float64 `json:"desired,omitempty"`
	Invalid string       `json:"invalid,omitempty"`
}

func TestScenarios(t *testing.T) {
	// The default handlers keep wall-clock time across bubbles: after the first error they would stop the next run.
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{func(context.Context, error, string, ...interface{}) {}}
	klog.LogToStderr(false)
	klog.SetOutput(discard{})

	outcomes := []outcome{}
	for _, each := range read(t) {
		hpa, err := autoscaler(each.Spec)
		if err != nil {
			outcomes = append(outcomes, outcome{Invalid: err.Error()})
			continue
		}
		var done outcome
		synctest.Test(t, func(t *testing.T) { done = run(t, each, hpa) })
		outcomes = append(outcomes, done)
	}
	text, err := json.Marshal(outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("ORACLE_OUT"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T) []scenario {
	text, err := os.ReadFile(os.Getenv("ORACLE_IN"))
	if err != nil {
		t.Fatal(err)
	}
	scenarios := []scenario{}
	if err := json.Unmarshal(text, &scenarios); err != nil {
		t.Fatal(err)
	}
	return scenarios
}

// run lets the controller live through a scenario, and looks at the replicas between its syncs.
func run(t *testing.T, each scenario, hpa *autoscalingv2.HorizontalPodAutoscaler) outcome {
	ctx, cancel := context.WithCancel(context.Background())
	client := fake.NewSimpleClientset(hpa)
	factory := informers.NewSharedInformerFactory(client, 0)
	clock := clock{start: time.Now()}
	target := &target{clock: clock, delay: seconds(each.StatusDelayS), changes: []change{{n: each.InitialReplicas}}}
	period := seconds(each.SyncPeriodS)
	controller := podautoscaler.NewHorizontalController(
		ctx, client.CoreV1(), target, client.AutoscalingV2(),
		testrestmapper.TestOnlyStaticRESTMapper(legacyscheme.Scheme), metrics{clock: clock, scenario: each},
		factory.Autoscaling().V2().HorizontalPodAutoscalers(), factory.Core().V1().Pods(),
		period, seconds(each.DownscaleStabilizationS), each.Tolerance, 5*time.Minute, 30*time.Second,
	)
	factory.StartWithContext(ctx)
	ended := make(chan struct{})
	go func() { controller.Run(ctx, 1); close(ended) }()

	desired := [][2]float64{}
	time.Sleep(period / 2)
	for at := period; at <= seconds(each.DurationS); at += period {
		time.Sleep(period)
		synctest.Wait()
		desired = append(desired, [2]float64{at.Seconds(), float64(target.last().n)})
		// a controller that stopped, or that drifted, would prove nothing
		if target.asked != len(desired) || target.askedAt != at {
			t.Fatalf("sync %d of %d was at %v, not at %v", target.asked, len(desired), target.askedAt, at)
		}
	}
	cancel()
	<-ended
	factory.Shutdown()
	return outcome{Desired: desired}
}

func object(spec autoscalingv2.HorizontalPodAutoscalerSpec) *autoscalingv2.HorizontalPodAutoscaler {
	spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name}
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta, Spec: spec}
}

type discard struct{}

func (discard) Write(text []byte) (int, error) { return len(text), nil }
