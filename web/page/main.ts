import {setUpBenchmark} from './benchmark.js';
import {setUpChat} from './chat.js';
import {setUpDiagnostics} from './diagnostics.js';
import {setUpModel} from './model.js';
import {setUpTabs} from './tabs.js';

setUpTabs();
setUpChat();
setUpModel();
setUpDiagnostics();
setUpBenchmark();
